#include "runtime/verify.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "model/expert_capacity.h"
#include "model/router_losses.h"
#include "parallel/gradient_reducer.h"
#include "parallel/partition.h"
#include "runtime/agreement.h"
#include "runtime/golden_decoding.h"
#include "runtime/model_folder_names.h"

namespace hypermoe {
namespace {

constexpr int64_t kBucketBytes = int64_t{16} << 20;

// The model and the file's rows on this rank.
class Verifier {
 public:
  Verifier(LoadedModel& loaded, const GoldenFile& golden, GoldenComparison& comparison)
      : loaded_(loaded),
        config_(loaded.info.config.model()),
        golden_(golden),
        comparison_(comparison),
        rows_(UnitsOfRank(golden.input_ids_BS.size(0),
                          CapacityGroupRows(config_.evaluation_capacity()),
                          loaded.mesh.world->size(), loaded.mesh.world->rank())) {}

  void RunPass();
  void Decode(const GoldenDecoding& decoding);

 private:
  Batch MyRows() const;
  at::Tensor MyLabels() const;
  int64_t CountedLabels() const;
  void CompareRows(const std::string& name, const at::Tensor& mine);
  void CompareLoss(const std::string& name, const at::Tensor& share);
  void CompareRouting(const std::vector<RoutingResult>& routing);
  void CompareGradients();
  void CompareSharedEmbedding();
  void CompareExpertGradient(const Parameter& parameter, int64_t expert);

  LoadedModel& loaded_;
  const ModelConfig& config_;
  const GoldenFile& golden_;
  GoldenComparison& comparison_;
  RowRange rows_;
};

bool HasGradients(const GoldenFile& golden) {
  return std::any_of(golden.entries.begin(), golden.entries.end(),
                     [](const auto& entry) { return absl::StartsWith(entry.first, "grad."); });
}

// A batch's labels belong to the position that predicts them; so do the file's where there is an
// encoder, elsewhere they belong to their own.
at::Tensor Verifier::MyLabels() const {
  at::Tensor labels = golden_.labels_BT;
  if (!HasEncoder(config_)) {
    const at::Tensor none = at::full({labels.size(0), 1}, kIgnoredLabel, at::kLong);
    labels = at::cat({labels.narrow(1, 1, labels.size(1) - 1), none}, 1);
  }
  return labels.narrow(0, rows_.begin, rows_.size()).contiguous();
}

Batch Verifier::MyRows() const {
  const auto mine = [&](const at::Tensor& all) {
    return all.defined() ? all.narrow(0, rows_.begin, rows_.size()).contiguous() : at::Tensor();
  };
  return {mine(golden_.input_ids_BS), MyLabels(), at::arange(rows_.begin, rows_.end, at::kLong),
          mine(golden_.attention_mask_BS)};
}

// Of all rows.
int64_t Verifier::CountedLabels() const {
  const at::Tensor& labels = golden_.labels_BT;
  const int64_t first = HasEncoder(config_) ? 0 : 1;
  return labels.narrow(1, first, labels.size(1) - first).ne(kIgnoredLabel).sum().item<int64_t>();
}

// `mine`: [rows of this rank, ...].
void Verifier::CompareRows(const std::string& name, const at::Tensor& mine) {
  if (!comparison_.Wants(name)) return;
  std::vector<int64_t> sizes = mine.sizes().vec();
  sizes[0] = golden_.input_ids_BS.size(0);
  const bool floating = mine.is_floating_point();
  const at::Tensor all = at::zeros(sizes, floating ? at::kDouble : at::kLong);
  all.narrow(0, rows_.begin, rows_.size()).copy_(mine);
  loaded_.mesh.world->AllReduceSum(all);
  comparison_.Compare(name, floating ? all : all.to(mine.scalar_type()));
}

void Verifier::CompareLoss(const std::string& name, const at::Tensor& share) {
  const at::Tensor loss = share.detach().to(at::kDouble).cpu().reshape({1}).clone();
  loaded_.mesh.world->AllReduceSum(loss);
  comparison_.Compare("loss." + name, loss);
}

void Verifier::CompareRouting(const std::vector<RoutingResult>& routing) {
  const std::vector<int64_t>& layers = loaded_.model->sparse_layers();
  for (size_t i = 0; i < routing.size(); ++i) {
    const int64_t length = routing[i].stack == Stack::kEncoder ? golden_.input_ids_BS.size(1)
                                                               : golden_.labels_BT.size(1);
    const at::Tensor experts =
        routing[i].expert_ids_TK.view({rows_.size(), length, config_.top_k()});
    const at::Tensor kept = routing[i].taken_TK.defined()
                                ? routing[i].taken_TK.view(experts.sizes())
                                : at::ones_like(experts);
    const std::string name = absl::StrCat("routing.", layers[i], ".");
    CompareRows(name + "experts", experts);
    CompareRows(name + "kept", kept.to(at::kByte));
  }
}

// As in training, but for the whole file as one micro-batch in evaluation mode.
void Verifier::RunPass() {
  const bool gradients = HasGradients(golden_);
  const at::AutoGradMode grad_mode(gradients);
  for (FlatBuffer& buffer : loaded_.buffers) buffer.ZeroGradients();
  const Batch batch = MyRows().To(loaded_.model->device());
  const ModelOutput output = loaded_.model->Forward(batch, ForwardMode{});
  // Before backward, which overwrites them.
  CompareRows("logits", output.logits_TV.detach().view(
                            {rows_.size(), golden_.labels_BT.size(1), config_.vocab_size()}));
  CompareRouting(output.routing);

  at::Tensor total = CrossEntropy(output.logits_TV, batch.labels_BS,
                                  static_cast<double>(std::max<int64_t>(1, CountedLabels())));
  CompareLoss("ce", total);
  if (!output.routing.empty()) {
    const RouterLosses router = ComputeRouterLosses(
        output.routing, config_, {1, golden_.input_ids_BS.size(0)}, *loaded_.mesh.world);
    CompareLoss("switch_balance", router.switch_balance);
    CompareLoss("importance_cv2", router.importance);
    CompareLoss("load_cv2", router.load);
    CompareLoss("router_z", router.router_z);
    total = total + router.Total();
  }
  CompareLoss("total", total);
  if (!gradients) return;
  total.backward();
  loaded_.model->FinishBackward();
  CompareGradients();
}

void Verifier::CompareGradients() {
  const std::vector<GradientBucket> buckets =
      MakeGradientBuckets(loaded_.buffers, loaded_.mesh, kBucketBytes);
  GradientReducer(loaded_.buffers, buckets, /*scatter=*/false).Finish();
  for (const Parameter& parameter : loaded_.model->parameters()) {
    if (parameter.group != ParameterGroup::kExpert) {
      for (const NamedTensor& view : GlobalViews(parameter, parameter.value.grad()))
        comparison_.Compare("grad." + view.name, view.tensor.cpu());
      continue;
    }
    for (int64_t expert = 0; expert < config_.num_experts(); ++expert)
      CompareExpertGradient(parameter, expert);
  }
  if (HasEncoder(config_) && !config_.tie_embeddings()) CompareSharedEmbedding();
}

// What stands for encoder's and decoder's embeddings together has the gradients of both.
void Verifier::CompareSharedEmbedding() {
  at::Tensor sum;
  for (const Parameter& parameter : loaded_.model->parameters()) {
    for (const std::string& name : UntiedEmbeddings()) {
      if (parameter.name != name) continue;
      const at::Tensor gradient = parameter.value.grad();
      sum = sum.defined() ? sum + gradient : gradient;
    }
  }
  comparison_.Compare("grad.shared.weight", sum.cpu());
}

// Brings the gradient from the expert's owner to all ranks.
void Verifier::CompareExpertGradient(const Parameter& parameter, int64_t expert) {
  const std::string name = "grad." + ExpertName(parameter, expert);
  if (!comparison_.Wants(name)) return;
  const at::Tensor gradient =
      at::zeros(parameter.value.sizes().slice(1), parameter.value.options());
  const int64_t local = expert - parameter.first_expert;
  if (loaded_.mesh.expert_data->rank() == 0 && local >= 0 && local < parameter.value.size(0))
    gradient.copy_(parameter.value.grad().select(0, local));
  loaded_.mesh.world->AllReduceSum(gradient);
  comparison_.Compare(name,
                      (parameter.named_transposed ? gradient.transpose(-2, -1) : gradient).cpu());
}

void Verifier::Decode(const GoldenDecoding& decoding) {
  CompareRows(decoding.entry,
              DecodeAsGolden(*loaded_.model, config_, decoding, MyRows(), *loaded_.mesh.world));
}

}  // namespace

std::vector<EntryDifference> CompareWithGolden(LoadedModel& loaded, const GoldenFile& golden,
                                               double tolerance) {
  GoldenComparison comparison(golden.entries, tolerance);
  Verifier verifier(loaded, golden, comparison);
  verifier.RunPass();
  for (const GoldenDecoding& decoding : golden.decodings) verifier.Decode(decoding);
  return comparison.Finish();
}

absl::StatusOr<VerifyResult> Verify(const VerifyOptions& options,
                                    std::shared_ptr<Communicator> world, int expert_parallel) {
  ASSIGN_OR_RETURN(LoadedModel loaded,
                   LoadModel(options.model, options.dtype, world, expert_parallel));
  VerifyResult result;
  result.golden = options.golden.empty() ? options.model + "/golden.safetensors" : options.golden;
  const absl::StatusOr<GoldenFile> golden =
      OpenGoldenFile(result.golden, loaded.info.config.model());
  RETURN_IF_ERROR(Agree(*world, golden.status()));
  result.tolerance = options.tolerance.value_or(options.dtype == "float64" ? 1e-9 : 1e-4);
  result.entries = CompareWithGolden(loaded, *golden, result.tolerance);
  return result;
}

}  // namespace hypermoe
