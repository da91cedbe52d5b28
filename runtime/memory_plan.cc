#include "runtime/memory_plan.h"

#include <c10/util/accumulate.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/matrix_product.h"
#include "kernels/relative_attention.h"
#include "model/config_values.h"
#include "model/expert_capacity.h"
#include "model/hyper_network.h"
#include "model/selections.h"
#include "model/weight_encoder.h"
#include "parallel/adafactor.h"
#include "parallel/gradient_reducer.h"
#include "parallel/process_mesh.h"
#include "runtime/dataset.h"
#include "runtime/hyper_execution.h"
#include "runtime/model_cost.h"
#include "runtime/parameter_patterns.h"
#include "runtime/run_length.h"

namespace hypermoe {
namespace {

// Measured (LibTorch 2.11, 1 thread): 17 MiB for three steps of a model of 5 thousand parameters, 7
// more where products are large enough for oneDNN.
constexpr int64_t kProgramBytes = int64_t{24} << 20;
// A kernel that oneDNN has compiled, with what it keeps beside it (measured).
constexpr int64_t kKernelBytes = int64_t{320} << 10;
// The heap beyond the blocks in use (process_memory.h, UseMallocForTensors), as a share of
// activations and workspace, whose blocks come and go.
constexpr double kAllocatorShare = 0.1;
// Tokens that the busiest rank of an expert group receives, to those that a rank has.
constexpr double kBusiest = 1.25;

// Rows of the first micro-batch on the first rank: none has more.
int64_t LargestRows(const RunConfig& config, int world_size) {
  const int64_t unit = CapacityGroupRows(config.model().training_capacity());
  return RowsOfMicroBatch(config.train(), 0, world_size, 0, unit).size();
}

// Choices that experts with a capacity take, at most, to all, of rows of so many positions.
double TakenShare(const ModelConfig& model, int64_t positions) {
  const CapacityConfig& capacity = model.training_capacity();
  if (capacity.mode() == CapacityConfig::factor_per_group) return std::min(1.0, capacity.factor());
  const double row_choices = static_cast<double>(positions) * model.top_k();
  return std::min(
      1.0, static_cast<double>(capacity.tokens_per_row()) * model.num_experts() / row_choices);
}

// The tensors of a step, after model/ and kernels/. In the letters of those files; all results are
// bytes. What depends on tokens is of one stack of blocks: of the decoder, or, of an
// encoder-decoder, of the encoder, whose decoder has a planner of its own.
class Planner {
 public:
  Planner(const RunConfig& config, int world_size, int expert_degree)
      : config_(config),
        model_(config.model()),
        world_size_(world_size),
        expert_degree_(expert_degree),
        rows_(LargestRows(config, world_size)),
        S_(model_.sequence_length()),
        T_(rows_ * S_),
        D_(model_.hidden_size()),
        F_(model_.ffn_size()),
        N_(model_.num_experts()),
        K_(model_.kind() == ModelConfig::dense ? 1 : model_.top_k()),
        A_(config.hyper().bottleneck_dim()),
        V_(model_.vocab_size()),
        local_experts_(ExpertsOfRank(N_, expert_degree, 0).size()),
        parameter_(config.runtime().dtype() == RuntimeConfig::float64 ? 8 : 4),
        element_(config.runtime().dtype() == RuntimeConfig::bfloat16 ? 2 : parameter_),
        execution_(ChooseExecution(config, world_size, expert_degree).execution),
        sparse_layers_(SparseLayers(model_)) {}

  MemoryPlan Plan() const;

 private:
  // What one block keeps for backward.
  struct Block {
    int64_t attention = 0;     // up to the attention's output projection, the block's input too
    int64_t feed_forward = 0;  // the rest
    int64_t input = 0;         // recomputation: kept of a block whose turn has not come
    int64_t attention_backward = 0, feed_forward_backward = 0;  // workspace
  };
  struct Peak {
    int64_t activations = 0, workspace = 0;
    int64_t sum() const { return activations + workspace; }
  };

  bool Is(ModelConfig::Kind kind) const { return model_.kind() == kind; }
  bool Executes(HyperConfig::Execution execution) const {
    return Is(ModelConfig::hyper) && execution_ == execution;
  }
  bool HyperAtOwner() const { return Executes(HyperConfig::owner); }
  // HyperExperts of a layer that this rank generates: once per step, or in every pass.
  int64_t Generated() const {
    if (!Executes(HyperConfig::source) && !HyperAtOwner()) return 0;
    if (HyperAtOwner() && K_ == 1) return local_experts_;
    const int64_t all = *NumSelections(N_, K_);
    return InCatalogue(all, K_) ? all : std::min(all, T_);
  }
  bool GeneratedOnce() const { return Generated() > 0 && InCatalogue(*NumSelections(N_, K_), K_); }
  bool Limited() const { return model_.training_capacity().mode() != CapacityConfig::none; }
  bool Recompute() const { return config_.train().recompute() == TrainConfig::blocks; }
  int64_t Rows(int64_t columns) const { return T_ * columns * element_; }
  // A row for each choice.
  int64_t Choices(int64_t columns) const { return K_ * Rows(columns); }
  // Of the choices that this rank's experts take.
  int64_t Taken(int64_t columns) const {
    double share = expert_degree_ > 1 ? kBusiest : 1.0;
    if (Limited()) share = TakenShare(model_, S_);
    return static_cast<int64_t>(share * static_cast<double>(Choices(columns)));
  }
  int64_t Mask(int64_t columns, double dropout) const { return dropout > 0 ? T_ * columns : 0; }
  int64_t Mask(int64_t columns) const { return Mask(columns, model_.dropout()); }
  bool Mixed() const { return element_ != parameter_; }
  // A weight in the precision of activations.
  int64_t Copy(int64_t elements) const { return Mixed() ? elements * element_ : 0; }
  // A product that is added to a weight's gradient (kernels/matrix_product.cc); none where it is
  // large or float64.
  int64_t Product(int64_t elements) const {
    if (Mixed()) return elements * element_;
    return parameter_ == 4 && elements <= kLargestSeparateProduct ? elements * parameter_ : 0;
  }
  // What a norm keeps: input, output, reciprocal deviation of each row and, in GPT-2, its mean.
  int64_t Norm() const { return 2 * Rows(D_) + (HasEncoder(model_) ? 1 : 2) * T_ * parameter_; }
  // Pre-activation and hidden rows.
  int64_t Ffn(int64_t inner) const { return 2 * Rows(inner); }

  Planner OfDecoder() const;
  // Probabilities of one attention to `keys` positions, in all that is kept of them, and in what
  // backward makes of that size.
  bool WritesOut(int64_t keys) const;
  int64_t Probabilities(int64_t keys) const;
  int64_t ProbabilitiesBackward(int64_t keys) const;
  // Of relative positions, for all blocks of a stack together.
  int64_t RelativeBias() const;

  bool WithAdafactor() const { return config_.optimizer().kind() == OptimizerConfig::adafactor; }
  // Of Adafactor: what it keeps, and what the update of the largest parameter makes.
  int64_t AdafactorMoments() const;
  int64_t AdafactorWorkspace() const;

  void AddStatic(MemoryPlan* plan) const;
  void AddAttention(Block* block) const;
  void AddSwitchAttention(int64_t encoded, Block* block) const;
  void AddDense(Block* block) const;
  void AddSparse(Block* block) const;
  void AddSide(Block* block) const;
  std::vector<Block> Blocks() const;
  int64_t EncoderGradients() const;
  int64_t CompiledKernels() const;
  Peak LargestPeak() const;

  const RunConfig& config_;
  const ModelConfig& model_;
  int64_t world_size_, expert_degree_;
  int64_t rows_, S_;  // of this rank, and positions of each
  int64_t T_, D_, F_, N_, K_, A_, V_, local_experts_;
  int64_t parameter_, element_;  // bytes of an element of parameters, of activations
  HyperConfig::Execution execution_;
  std::vector<int64_t> sparse_layers_;
};

int64_t Planner::AdafactorMoments() const {
  int64_t elements = 0, of_experts = 0;
  ForEachTrainedTensor(config_, [&](ParameterGroup group, at::IntArrayRef shape) {
    const bool factored = IsFactored(shape, config_.optimizer().min_dim_size_to_factor());
    (group == ParameterGroup::kExpert ? of_experts : elements) +=
        factored ? shape[0] + shape[1] : c10::multiply_integers(shape);
  });
  return (elements + of_experts / N_ * local_experts_) * parameter_;
}

int64_t Planner::AdafactorWorkspace() const {
  int64_t largest = 0;
  ForEachTrainedTensor(config_, [&](ParameterGroup group, at::IntArrayRef shape) {
    const int64_t stacked = group == ParameterGroup::kExpert ? local_experts_ : 1;
    largest = std::max(largest, stacked * c10::multiply_integers(shape));
  });
  return 2 * largest * parameter_;  // u, and squares or the new value
}

void Planner::AddStatic(MemoryPlan* plan) const {
  const ParameterCounts counts = CountParameters(config_);
  const int64_t replicated = counts.dense + counts.hyper,
                experts = counts.experts / N_ * local_experts_,
                holders = world_size_ / expert_degree_;  // of one expert
  const ParameterCounts frozen = CountFrozen(config_);
  const int64_t trained = replicated - frozen.dense - frozen.hyper,
                trained_experts = experts - frozen.experts / N_ * local_experts_;
  plan->parameters = (replicated + experts) * parameter_;
  plan->gradients = (trained + trained_experts) * parameter_;
  plan->moments = 2 * plan->gradients;
  if (config_.optimizer().zero1()) {
    plan->moments =
        2 * parameter_ *
        ((trained + world_size_ - 1) / world_size_ + (trained_experts + holders - 1) / holders);
  }
  if (WithAdafactor()) plan->moments = AdafactorMoments();
  // The first rank writes all that it holds. The last checkpoint is written without a copy.
  const CheckpointConfig& checkpoint = config_.checkpoint();
  if (checkpoint.asynchronous() && checkpoint.every() > 0 &&
      checkpoint.every() < TotalSteps(config_)) {
    const bool on_gpu = config_.mesh().device() == MeshConfig::cuda;
    (on_gpu ? plan->host_snapshot : plan->snapshot) =
        plan->parameters + (WithAdafactor() ? plan->moments : 2 * plan->gradients);
  }
  const auto sparse = static_cast<int64_t>(sparse_layers_.size());
  if (GeneratedOnce()) {
    plan->hyper_experts = 2 * sparse * Generated() * 2 * D_ * A_ * parameter_;
  }
  const int64_t buckets = static_cast<int64_t>(kMaxPendingReductions) *
                          (int64_t{config_.mesh().bucket_mebibytes()} << 20);
  plan->communication = std::min(buckets, trained * parameter_) / world_size_ * (world_size_ - 1) +
                        std::min(buckets, trained_experts * parameter_) / holders * (holders - 1);
}

void Planner::AddAttention(Block* block) const {
  const int64_t heads = model_.num_heads(), positions = model_.sequence_length();
  block->input = Rows(D_);
  block->attention = Norm() + Rows(3 * D_) + Rows(D_) + Mask(D_) + Copy(4 * D_ * D_);
  // Gradients of query, key and value, gathered and laid out; of the block's output and middle.
  block->attention_backward = Rows(8 * D_) + Product(3 * D_ * D_);
  if (AttentionDropoutOf(model_) > 0) {
    // Written out: probabilities before and after dropout, and its mask.
    const int64_t scores = T_ * heads * positions;
    block->attention += scores * (parameter_ + element_ + 1);
    block->attention_backward += 3 * scores * parameter_;
  } else {
    block->attention += T_ * heads * parameter_;  // the fused kernel's logsumexp
  }
}

Planner Planner::OfDecoder() const {
  Planner decoder = *this;
  decoder.S_ = LabelsOfRow(config_);
  decoder.T_ = rows_ * decoder.S_;
  return decoder;
}

bool Planner::WritesOut(int64_t keys) const {
  const bool on_gpu = config_.mesh().device() == MeshConfig::cuda;
  return WritesOutProbabilities(S_, keys, on_gpu ? at::kCUDA : at::kCPU);
}

// With dropout before and after it, and its mask; in bfloat16 rounded too. Made piece by piece, the
// mask alone stays.
int64_t Planner::Probabilities(int64_t keys) const {
  const bool dropped = model_.dropout() > 0, twice = dropped || Mixed();
  const int64_t written = WritesOut(keys) ? parameter_ + (twice ? element_ : 0) : 0;
  return T_ * model_.num_heads() * keys * (written + (dropped ? 1 : 0));
}

int64_t Planner::ProbabilitiesBackward(int64_t keys) const {
  return WritesOut(keys) ? 2 * T_ * model_.num_heads() * keys * parameter_ : 0;
}

// The bias and its gradient.
int64_t Planner::RelativeBias() const { return 2 * S_ * S_ * model_.num_heads() * parameter_; }

// Of a block of a Switch Transformer, which in a decoder also attends to `encoded` positions of the
// encoder's output.
void Planner::AddSwitchAttention(int64_t encoded, Block* block) const {
  const int64_t inner = model_.num_heads() * HeadSize(model_);
  const auto kept = [&](int64_t keys) {
    // Queries and what they find; keys and values.
    return Norm() + Rows(2 * inner) + rows_ * keys * 2 * inner * element_ + Mask(D_) +
           Copy(4 * D_ * inner) + Probabilities(keys);
  };
  const auto backward = [&](int64_t keys) {
    return Rows(2 * D_ + 2 * inner) + rows_ * keys * 2 * inner * element_ + Product(D_ * inner) +
           ProbabilitiesBackward(keys);
  };
  block->input = Rows(D_);
  block->attention = kept(S_);
  block->attention_backward = backward(S_);
  if (encoded == 0) return;
  block->attention += kept(encoded);
  // With the gradient of the encoder's output, from this block and from those after it.
  block->attention_backward =
      std::max(block->attention_backward, backward(encoded)) + 2 * rows_ * encoded * D_ * element_;
}

void Planner::AddDense(Block* block) const {
  block->feed_forward =
      Norm() + Ffn(F_) + Mask(D_) + Mask(F_, DenseInnerDropoutOf(model_)) + Copy(2 * D_ * F_);
  block->feed_forward_backward = Rows(3 * D_) + Ffn(F_) + Product(D_ * F_);
}

void Planner::AddSparse(Block* block) const {
  const bool exchanged = expert_degree_ > 1;
  const bool hyper = Is(ModelConfig::hyper);
  const int64_t router = T_ * D_ * parameter_;
  // Received rows and what the experts made of them, on either side of the exchange.
  const int64_t rows = Taken(D_) + (Limited() ? Taken(D_) : Choices(D_));
  // To the owner first choices travel in any case, for the HyperExpert.
  const int64_t record = HyperAtOwner() && Limited() ? Choices(2 * D_) : rows;
  // Logits, probabilities and a gradient from the losses that look at them; expert ids, the
  // permutation and its inverse.
  const int64_t decision = 3 * T_ * N_ * parameter_ + 3 * K_ * T_ * 8;
  block->input += decision + (exchanged ? record : 0);
  block->feed_forward = Norm() + Mask(D_) + rows + decision + 2 * Taken(F_) + 2 * T_ * parameter_ +
                        Copy(local_experts_ * 2 * D_ * F_);
  if (ExpertInnerDropoutOf(model_) > 0) block->feed_forward += Taken(F_) / element_;  // its mask
  if (model_.router_jitter() > 0) block->feed_forward += 2 * router;
  // Clean logits, noise, its deviation and what load is made of.
  if (model_.router() == ModelConfig::noisy_topk) block->feed_forward += 8 * T_ * N_ * parameter_;
  if (K_ > 1) {
    // Rows as they return to their tokens, to be summed up; the sum's gradient by choice.
    block->feed_forward += Choices(D_);
    block->feed_forward_backward += Choices(2 * D_);
  }
  if (Mixed()) block->feed_forward += router;  // its input
  if (Limited()) {
    // Beside the returned rows those with a zero for each token dropped; beside the received ones
    // those that the HyperExpert sees.
    block->feed_forward += hyper ? Choices(2 * D_) : Choices(D_);
  } else if (hyper && !HyperAtOwner() && exchanged) {
    block->feed_forward += Rows(D_);
  }
  // Returned rows in the gate's precision.
  if (Mixed() && hyper) block->feed_forward += router - Rows(D_);
  // Early in training most tokens may choose one expert, so one group's rows count as all.
  block->feed_forward_backward +=
      Rows(4 * D_) + Taken(exchanged ? 2 * D_ : D_) + 2 * Taken(F_) + Product(D_ * F_);
  // What the owner's record holds are rows with their gates, from which the rows are copied.
  if (Recompute() && HyperAtOwner() && exchanged) block->feed_forward_backward += record;
}

void Planner::AddSide(Block* block) const {
  if (Is(ModelConfig::moe_share)) block->feed_forward += Ffn(F_) + Copy(2 * D_ * F_);
  if (Is(ModelConfig::adapter)) block->feed_forward += Ffn(A_) + Copy(2 * D_ * A_);
  if (!Is(ModelConfig::hyper)) return;
  const int64_t hidden = config_.hyper().hidden_dim();
  block->feed_forward += HyperAtOwner() && !Limited() && K_ == 1 ? 2 * Taken(A_) : Ffn(A_);
  block->feed_forward += Copy(Generated() * 2 * D_ * A_);
  int64_t matrices = 0;  // generated in the pass
  if (Executes(HyperConfig::per_token)) matrices = T_ * 2 * D_ * A_ * parameter_;
  if (Generated() > 0 && !GeneratedOnce()) matrices = Generated() * 2 * D_ * A_ * parameter_;
  if (Generated() > 0 && K_ > 1) matrices += Rows(D_);  // sorted by selection
  if (Executes(HyperConfig::bilinear)) {
    // x W_D, the outer product, and W_U laid out for it.
    matrices = Rows(2 * A_ * hidden) + D_ * A_ * hidden * (parameter_ + element_);
  }
  block->feed_forward += matrices;
  block->feed_forward_backward += matrices;
}

std::vector<Planner::Block> Planner::Blocks() const {
  const Planner decoder = HasEncoder(model_) ? OfDecoder() : *this;
  std::vector<Block> blocks(NumBlocks(model_));
  for (int64_t layer = 0; layer < NumBlocks(model_); ++layer) {
    const bool in_decoder = StackOf(model_, layer) == Stack::kDecoder;
    const Planner& stack = in_decoder ? decoder : *this;
    if (HasEncoder(model_)) {
      stack.AddSwitchAttention(in_decoder ? S_ : 0, &blocks[layer]);
    } else {
      AddAttention(&blocks[layer]);
    }
    if (std::binary_search(sparse_layers_.begin(), sparse_layers_.end(), layer)) {
      stack.AddSparse(&blocks[layer]);
      stack.AddSide(&blocks[layer]);
    } else {
      stack.AddDense(&blocks[layer]);
    }
  }
  return blocks;
}

// Walks backward through a step and takes the worst moment.
Planner::Peak Planner::LargestPeak() const {
  const std::vector<Block> blocks = Blocks();
  const Planner decoder = HasEncoder(model_) ? OfDecoder() : *this;
  const int64_t ids = 3 * (T_ + decoder.T_) * 8;  // with labels, of three batches
  // The logits, which backward turns into their gradient, stay to its end.
  int64_t kept = ids + decoder.Rows(V_) + Mask(D_, EmbeddingDropoutOf(model_));
  if (HasEncoder(model_)) {
    // The decoder's embedding and both outputs have dropout too; the encoder's output stays.
    kept += Mask(D_) + 2 * decoder.Mask(D_) + Norm() + RelativeBias() + decoder.RelativeBias();
  }
  for (const Block& block : blocks) {
    kept += Recompute() ? block.input : block.attention + block.feed_forward;
  }
  Peak largest;
  const auto consider = [&](int64_t activations, int64_t workspace) {
    const Peak peak = {activations, workspace};
    if (peak.sum() > largest.sum()) largest = peak;
  };
  consider(kept + decoder.Norm() + Copy(V_ * D_), decoder.Rows(D_) + Product(V_ * D_));
  for (size_t i = blocks.size(); i-- > 0;) {
    const Block& block = blocks[i];
    if (Recompute()) kept += block.attention + block.feed_forward - block.input;
    consider(kept, block.feed_forward_backward);
    kept -= block.feed_forward;
    consider(kept, block.attention_backward);
    kept -= block.attention;
  }
  // Last, the HyperExperts' gradients go back through the hypernetwork's two large matrices.
  if (GeneratedOnce()) {
    consider(ids, D_ * A_ * config_.hyper().hidden_dim() * parameter_);
  }
  if (Is(ModelConfig::hyper) && config_.hyper().condition() == HyperConfig::weights) {
    consider(ids, WeightEncoder::kWorkspace * parameter_ + EncoderGradients());
  }
  if (WithAdafactor()) consider(ids, AdafactorWorkspace());
  return largest;
}

// Of condition weights: what one layer's experts get from the embeddings' network.
int64_t Planner::EncoderGradients() const {
  return config_.hyper().conv_grad_to_experts() ? local_experts_ * 2 * D_ * F_ * parameter_ : 0;
}

// How many stay, measured over 3 and 40 steps: most for experts, whose numbers of rows differ from
// step to step. LimitKernelCaches (process_memory.h) bounds them.
int64_t Planner::CompiledKernels() const {
  const bool dense = sparse_layers_.empty();
  if (Mixed()) return dense ? 36 : 128;
  if (parameter_ == 8) return 0;
  return dense ? 6 : 36;
}

MemoryPlan Planner::Plan() const {
  MemoryPlan plan;
  AddStatic(&plan);
  const Peak peak = LargestPeak();
  plan.activations = peak.activations;
  plan.workspace = peak.workspace;
  plan.allocator = static_cast<int64_t>(kAllocatorShare * static_cast<double>(peak.sum()));
  plan.program = kProgramBytes + CompiledKernels() * kKernelBytes;
  return plan;
}

}  // namespace

MemoryPlan PlanMemory(const RunConfig& config, int world_size, int expert_degree) {
  return Planner(config, world_size, expert_degree).Plan();
}

std::string FormatBytes(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < int64_t{1} << 20) return absl::StrFormat("%.0f KiB", value / (1 << 10));
  if (bytes < int64_t{1000} << 20) return absl::StrFormat("%.0f MiB", value / (1 << 20));
  return absl::StrFormat("%.2f GiB", value / (1 << 30));
}

std::string DescribeMemory(const MemoryPlan& plan) {
  const std::pair<const char*, int64_t> parts[] = {{"parameters", plan.parameters},
                                                   {"gradients", plan.gradients},
                                                   {"moments", plan.moments},
                                                   {"HyperExperts", plan.hyper_experts},
                                                   {"activations", plan.activations},
                                                   {"workspace", plan.workspace},
                                                   {"communication", plan.communication},
                                                   {"allocator", plan.allocator},
                                                   {"snapshot for checkpoints", plan.snapshot},
                                                   {"program", plan.program}};
  std::vector<std::string> texts;
  for (const auto& [name, bytes] : parts) {
    if (bytes > 0) texts.push_back(absl::StrCat(name, " ", FormatBytes(bytes)));
  }
  return absl::StrCat(FormatBytes(plan.total()), ": ", absl::StrJoin(texts, ", "),
                      plan.host_snapshot == 0
                          ? ""
                          : absl::StrCat("; of the host's: snapshot for checkpoints ",
                                         FormatBytes(plan.host_snapshot)));
}

}  // namespace hypermoe
