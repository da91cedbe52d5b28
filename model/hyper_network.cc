#include "model/hyper_network.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>
#include <string>
#include <utility>

#include "kernels/expert_order.h"
#include "kernels/grouped_ffn.h"
#include "kernels/host_read.h"
#include "kernels/select_rows.h"
#include "model/gated_rows.h"

namespace hypermoe {
namespace {

bool OncePerSelection(const HyperConfig& config) {
  return config.execution() == HyperConfig::source || config.execution() == HyperConfig::owner;
}

std::array<at::Tensor, 4> PartsOf(const HyperExperts& experts) {
  return {experts.down_MDA, experts.up_MAD, experts.down_offset_MA, experts.up_offset_MD};
}

at::Tensor ApplyNetworks(const at::Tensor& sorted_TD, const std::vector<int64_t>& rows_per_network,
                         const HyperExperts& experts) {
  return GroupedFfn(
      sorted_TD, rows_per_network,
      {experts.down_MDA, experts.down_offset_MA, experts.up_MAD, experts.up_offset_MD},
      Activation::kRelu);
}

std::vector<int64_t> ToVector(const at::Tensor& counts) {
  HostRead read(counts);
  const at::Tensor& on_host = read.Wait();
  const int64_t* data = on_host.const_data_ptr<int64_t>();
  return {data, data + on_host.numel()};
}

}  // namespace

bool InCatalogue(int64_t num_selections, int64_t top_k) {
  constexpr int64_t kMaxOfSeveral = 128;
  return top_k == 1 || num_selections <= kMaxOfSeveral;
}

HyperNetwork::HyperNetwork(const HyperConfig& config, const ModelConfig& model,
                           const std::vector<int64_t>& sparse_layers,
                           std::shared_ptr<const TokenDispatcher> dispatcher,
                           ParameterFactory& factory)
    : config_(config), top_k_(model.top_k()), dispatcher_(std::move(dispatcher)) {
  if (config.baked()) {
    MakeBaked(model, sparse_layers, factory);
  } else {
    generator_.emplace(config, model, sparse_layers, factory);
    if (generator_->encoder() != nullptr) experts_.resize(sparse_layers.size());
  }
  TORCH_CHECK(config.execution() != HyperConfig::auto_, "hyper.execution auto was not resolved");
  if (!OncePerSelection(config)) return;
  TORCH_CHECK(config.condition() != HyperConfig::hidden && config.z() == HyperConfig::binary,
              "HyperExperts of single tokens cannot be shared by selection");
  selections_.emplace(model.num_experts(), top_k_);
  catalogue_size_ = InCatalogue(selections_->count(), top_k_) ? selections_->count() : 0;
  if (at_owner() && by_expert()) {
    catalogue_begin_ = dispatcher_->local_experts().begin;
    catalogue_size_ = dispatcher_->local_experts().size();
  }
}

void HyperNetwork::MakeBaked(const ModelConfig& model, const std::vector<int64_t>& sparse_layers,
                             ParameterFactory& factory) {
  TORCH_CHECK(OncePerSelection(config_) && top_k_ == 1,
              "baked HyperExperts are applied by execution source or owner, for one choice");
  const int64_t experts = model.num_experts(), width = model.hidden_size(),
                bottleneck = config_.bottleneck_dim();
  for (const int64_t block : sparse_layers) {
    const std::string prefix = "hypermoe.baked." + std::to_string(block) + ".";
    const auto make = [&](const std::string& name, at::IntArrayRef shape) {
      return factory.Make(prefix + name, shape, Init::Constant(0), ParameterGroup::kHyper);
    };
    HyperExperts& made = baked_.emplace_back();
    made.down_MDA = make("down", {experts, width, bottleneck});
    made.up_MAD = make("up", {experts, bottleneck, width});
    if (!config_.gen_bias()) continue;
    made.down_offset_MA = make("down_offset", {experts, bottleneck});
    made.up_offset_MD = make("up_offset", {experts, width});
  }
}

void HyperNetwork::SetExperts(int64_t layer, const GroupedFfnWeights& experts) {
  if (!experts_.empty()) experts_[static_cast<size_t>(layer)] = {experts.up_GDF, experts.down_GFD};
}

void HyperNetwork::OncePerStep::Take(const at::Tensor& made) {
  generated = made;
  leaves = made.detach().unbind(0);
  if (!made.requires_grad()) return;
  if (!gradient.defined()) gradient = at::zeros_like(made.detach());
  gradient.zero_();
  for (size_t layer = 0; layer < leaves.size(); ++layer) {
    leaves[layer].set_requires_grad(true).mutable_grad() = gradient[static_cast<int64_t>(layer)];
  }
}

// One gather for all layers.
void HyperNetwork::Encode() {
  std::vector<at::Tensor> own_LeE;
  for (const auto& [up_eDF, down_eFD] : experts_) {
    TORCH_CHECK(up_eDF.defined(), "the hypernetwork was not given the experts of every layer");
    own_LeE.push_back(generator_->encoder()->Encode(up_eDF, down_eFD));
  }
  const at::Tensor all_NLE = dispatcher_->GatherFromOwners(at::stack(own_LeE, 1));
  embeddings_.Take(all_NLE.transpose(0, 1).contiguous());
  generator_->SetExpertEmbeddings(embeddings_.leaves);
}

void HyperNetwork::Generate() {
  const at::Tensor numbers_M =
      at::arange(catalogue_begin_, catalogue_begin_ + catalogue_size_, at::kLong);
  const at::Tensor weights_MN = generator_->WeightsOfSelections(selections_->Members(numbers_M));
  std::vector<at::Tensor> k_LMQ;
  for (int64_t layer = 0; layer < generator_->num_layers(); ++layer) {
    k_LMQ.push_back(generator_->HiddenOfWeights(weights_MN, layer));
  }
  const std::array<at::Tensor, 4> parts = PartsOf(generator_->GenerateAll(k_LMQ));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].defined()) continue;
    std::vector<int64_t> shape = parts[i].sizes().vec();
    shape[0] = catalogue_size_;
    shape.insert(shape.begin(), generator_->num_layers());
    catalogue_[i].Take(parts[i].view(shape));
  }
  ++generations_;
}

// What was made for evaluation has no graph; a step that will run backward needs one.
bool HyperNetwork::IsCurrent() const {
  return prepared_ && (with_graph_ || !at::GradMode::is_enabled());
}

void HyperNetwork::Prepare() {
  if (config_.baked() || IsCurrent()) return;
  if (!experts_.empty()) Encode();
  if (selections_.has_value() && (catalogue_size_ > 0 || by_expert())) Generate();
  prepared_ = true;
  with_graph_ = at::GradMode::is_enabled();
}

void HyperNetwork::Invalidate() {
  prepared_ = false;
  const auto clear = [](OncePerStep& part) {
    part.generated = at::Tensor();
    part.leaves.clear();
  };
  clear(embeddings_);
  for (OncePerStep& part : catalogue_) clear(part);
}

HyperExperts HyperNetwork::LeavesOf(int64_t layer) const {
  if (config_.baked()) {
    const auto held = [&](const at::Tensor& all) {
      return all.defined() ? all.narrow(0, catalogue_begin_, catalogue_size_) : all;
    };
    const HyperExperts& all = baked_[static_cast<size_t>(layer)];
    return {held(all.down_MDA), held(all.up_MAD), held(all.down_offset_MA), held(all.up_offset_MD)};
  }
  const auto leaf = [&](size_t part) {
    const std::vector<at::Tensor>& leaves = catalogue_[part].leaves;
    return leaves.empty() ? at::Tensor() : leaves[static_cast<size_t>(layer)];
  };
  return {leaf(0), leaf(1), leaf(2), leaf(3)};
}

at::Tensor HyperNetwork::Scaled(const at::Tensor& y_TD, int64_t layer) const {
  return config_.baked() ? y_TD : ScaleRows(y_TD, generator_->Factor(layer));
}

at::Tensor HyperNetwork::ApplyGrouped(const at::Tensor& sorted_TD,
                                      const std::vector<int64_t>& rows_per_expert, int64_t layer) {
  TORCH_CHECK(by_expert(), "HyperExperts do not follow one selected expert");
  Prepare();
  return Scaled(ApplyNetworks(sorted_TD, rows_per_expert, LeavesOf(layer)), layer);
}

at::Tensor HyperNetwork::ApplySelections(const at::Tensor& x_TD, const at::Tensor& numbers_T,
                                         int64_t layer) {
  TORCH_CHECK(selections_.has_value(), "HyperExperts do not depend on selections alone");
  const auto [experts, rows_per_network, chosen_R] =
      catalogue_size_ > 0 ? ChosenOfCatalogue(numbers_T, layer) : ChosenGenerated(numbers_T, layer);
  const at::Tensor y_RD = ApplyNetworks(SelectRows(x_TD, chosen_R), rows_per_network, experts);
  return Scaled(at::zeros_like(x_TD.detach()).index_copy(0, chosen_R, y_RD), layer);
}

HyperNetwork::Chosen HyperNetwork::ChosenOfCatalogue(const at::Tensor& numbers_T, int64_t layer) {
  Prepare();
  // Rows without a HyperExpert go behind all others.
  const ExpertOrder order =
      OrderByExpert((numbers_T - catalogue_begin_).masked_fill(numbers_T.lt(0), catalogue_size_),
                    catalogue_size_ + 1);
  std::vector<int64_t> rows_per_network = ToVector(order.counts);
  rows_per_network.resize(static_cast<size_t>(catalogue_size_));
  const int64_t rows =
      std::accumulate(rows_per_network.begin(), rows_per_network.end(), int64_t{0});
  return {LeavesOf(layer), std::move(rows_per_network), order.order_C.narrow(0, 0, rows)};
}

HyperNetwork::Chosen HyperNetwork::ChosenGenerated(const at::Tensor& numbers_T,
                                                   int64_t layer) const {
  const auto [sorted_T, order_T] = at::sort(numbers_T, /*stable=*/true, 0, /*descending=*/false);
  const int64_t skipped = numbers_T.lt(0).sum().item<int64_t>();
  const int64_t rows = numbers_T.numel() - skipped;
  const auto [numbers_M, unused, counts_M] =
      at::_unique2(sorted_T.narrow(0, skipped, rows), /*sorted=*/true, /*return_inverse=*/false,
                   /*return_counts=*/true);
  const at::Tensor weights_MN = generator_->WeightsOfSelections(selections_->Members(numbers_M));
  return {generator_->Generate(generator_->HiddenOfWeights(weights_MN, layer), layer),
          ToVector(counts_M), order_T.narrow(0, skipped, rows)};
}

at::Tensor HyperNetwork::HiddenPerToken(const at::Tensor& x_TD, const RoutingResult& decision,
                                        int64_t layer) const {
  if (config_.condition() == HyperConfig::hidden) return generator_->HiddenOfInput(x_TD, layer);
  const at::Tensor weights_TN = config_.z() == HyperConfig::one_minus_prob
                                    ? generator_->WeightsOfProbabilities(decision.probs_TN)
                                    : generator_->WeightsOfSelections(decision.expert_ids_TK);
  return generator_->HiddenOfWeights(weights_TN, layer);
}

at::Tensor HyperNetwork::Apply(const at::Tensor& x_TD, const RoutingResult& decision,
                               int64_t layer) {
  if (selections_.has_value()) {
    return ApplySelections(x_TD, selections_->NumberOf(decision.expert_ids_TK), layer);
  }
  const at::Tensor k_TQ = HiddenPerToken(x_TD, decision, layer);
  return Scaled(config_.execution() == HyperConfig::per_token
                    ? ApplyPerToken(x_TD, k_TQ, layer)
                    : generator_->ApplyBilinear(x_TD, k_TQ, layer),
                layer);
}

bool HyperNetwork::Backward(const std::vector<const OncePerStep*>& parts) {
  // Parts whose parameters are all frozen have no gradient.
  std::vector<at::Tensor> roots, gradients;
  for (const OncePerStep* part : parts) {
    if (!part->HasGradient()) continue;
    roots.push_back(part->generated);
    gradients.push_back(part->gradient);
  }
  if (!roots.empty()) torch::autograd::backward(roots, gradients);
  return !roots.empty();
}

void HyperNetwork::BackwardThroughGeneration() {
  const bool generated = Backward({&catalogue_[0], &catalogue_[1], &catalogue_[2], &catalogue_[3]});
  // The catalogue is made from the embeddings, which have all of their gradient only now.
  const bool encoded = Backward({&embeddings_});
  if (generated || encoded) Invalidate();
}

// The equations as they stand, for every token by itself: the definition that the other executions
// are tested against.
at::Tensor HyperNetwork::ApplyPerToken(const at::Tensor& x_TD, const at::Tensor& k_TQ,
                                       int64_t layer) const {
  const HyperExperts own = generator_->Generate(k_TQ, layer);
  at::Tensor pre_T1A = at::bmm(x_TD.to(k_TQ.scalar_type()).unsqueeze(1), own.down_MDA);
  if (own.down_offset_MA.defined()) pre_T1A = pre_T1A + own.down_offset_MA.unsqueeze(1);
  at::Tensor y_TD = at::bmm(at::relu(pre_T1A), own.up_MAD).squeeze(1);
  if (own.up_offset_MD.defined()) y_TD = y_TD + own.up_offset_MD;
  return y_TD.to(x_TD.scalar_type());
}

}  // namespace hypermoe
