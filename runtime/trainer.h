// A model in training: its parameters, gradients and optimizer state on this rank, and the training
// step.
//
// Legend: L sparse layers, N experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/flat_buffer.h"
#include "parallel/gradient_bucket.h"
#include "parallel/gradient_reducer.h"
#include "parallel/optimizer.h"
#include "parallel/process_mesh.h"
#include "parallel/step_decision.h"
#include "runtime/dataset.h"
#include "runtime/prefetcher.h"
#include "runtime/window_evaluation.h"

namespace hypermoe {

// Where the time of a step goes. Means over the ranks; seconds inside a collective include waiting
// for other ranks. The host waits for a GPU at the end of `optimizer`, and before that where it has
// to know how many tokens go where.
struct StepSeconds {
  double data = 0;  // waiting for a batch, which is assembled during the step before
  double forward = 0, backward = 0, reduce = 0;
  double optimizer = 0;   // zeroing of gradients, norm and update
  double all_to_all = 0;  // token dispatch: part of forward and backward
  double total() const { return data + forward + backward + reduce + optimizer; }
};

// What the ranks tell each other together with a step's figures, at no collective of its own. A
// rank gives 0 or 1; the result of the step holds the sums over the ranks.
struct StepVotes {
  int64_t stop = 0;    // has been asked to save and stop
  int64_t saving = 0;  // is still writing its files of a checkpoint
};

// What one step says about itself: global values, the same on every rank.
struct StepResult {
  double loss = 0;  // mean cross-entropy of the batch, nats a token, as train.loss_norm says
  // Of the router (model/router_losses.h), coefficients included.
  double balance_loss = 0, importance_loss = 0, load_loss = 0, router_z_loss = 0;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  // Whether the norm or one of the losses was not finite: nothing was changed. The batch is used up
  // all the same.
  bool skipped = false;
  int64_t skipped_steps = 0;  // of the run so far, this one included
  StepSeconds seconds;
  // What the step's collectives cost, by kind (parallel/communicator.h): bytes summed over the
  // ranks, calls and seconds their means.
  std::array<Traffic, kNumCollectives> traffic;
  int64_t memory_bytes = 0;  // resident at most so far, of the rank that has the most
  StepVotes votes;
  at::Tensor tokens_LN;   // int64: choices of the batch by sparse layer and expert
  at::Tensor dropped_LN;  // those of them for which the expert had no room
  // By sparse layer, over all tokens of the batch: the root of the sum of squares of what
  // HyperExperts add, divided by that of what experts add (0 if they add nothing). Empty without
  // HyperExperts, and where they are added before a token's experts have come together (execution
  // owner with several experts a token).
  std::vector<double> hyper_shares;
  // Largest over mean tokens of an expert, in the sparse layer where it is worst; 0 for a dense
  // model.
  double LoadMaxOverMean() const;
  int64_t BytesSent() const;
  // Of all choices of an expert, the share for which it had no room.
  double DroppedShare() const;
  // Experts, over all sparse layers, that no token of the batch has chosen.
  int64_t IdleExperts() const;
};

class Trainer {
 public:
  // Makes the model with its initial values. Local.
  Trainer(const RunConfig& config, const ProcessMesh& mesh,
          std::shared_ptr<const TrainingData> data);

  // One optimizer step on the global batch of `step` (from 0; every step has its turn). A step
  // whose loss or gradient norm is not finite is skipped on all ranks: values, moments and the
  // count of updates stay as they are, bit for bit. `votes` is asked for this rank's right before
  // the step's figures are shared, its work done; empty: none. Collective over the world; the same
  // result on every rank.
  StepResult TrainStep(int64_t step, const std::function<StepVotes()>& votes = {});

  // The first part of TrainStep: fills the gradients of the global batch's loss, reduced (with
  // optimizer.zero1 only in the parts that this rank owns), not clipped.
  StepResult ComputeGradients(int64_t step);

  // Called after every phase of a step ("data", "forward", "backward", "reduce", "optimizer") with
  // its begin and end in seconds of the steady clock; empty: nobody.
  using PhaseObserver = std::function<void(const char* phase, double begin, double end)>;
  void set_phase_observer(PhaseObserver observer) { phase_observer_ = std::move(observer); }

  // For tests that must see what another rule than kTogether does.
  void set_skip_rule(SkipRule rule) { skip_rule_ = rule; }

  // Whether this rank's own losses of the last step were all finite: of a step that was skipped,
  // the ranks where the numbers went wrong on the way forward.
  bool own_losses_finite() const { return own_losses_finite_; }

  // EvaluateWindows of the model as it is now.
  std::optional<EvaluatedLosses> Evaluate(const ValidationData& data, int64_t max_rows,
                                          const std::function<bool()>& stop = {});

  // Names the random numbers of a step.
  RandomKey StepKey(int64_t step) const;

  LanguageModel& model() { return *model_; }
  std::vector<FlatBuffer>& buffers() { return buffers_; }
  const std::vector<GradientBucket>& buckets() const { return buckets_; }
  const GradientReducer& reducer() const { return reducer_; }
  Optimizer& optimizer() { return *optimizer_; }

 private:
  // What a step has on the device until its end.
  struct DeviceFigures {
    at::Tensor losses_5;  // this rank's shares, in the order of StepResult
    at::Tensor tokens_LN, dropped_LN;
    at::Tensor squares_L2;  // RoutingResult::squares_2; empty where it is undefined
  };

  DeviceFigures AccumulateGradients(int64_t step, StepResult* result);
  // What the losses of this rank's rows of a micro-batch are divided by, so that their sum over
  // micro-batches and ranks is the step's loss. The labels are on the CPU.
  double LossDivisor(int64_t step, const at::Tensor& labels_BT) const;
  // Adds to `figures`.
  void RunMicroBatch(int64_t step, int64_t micro_batch, DeviceFigures* figures, StepResult* result);

  RunConfig config_;
  ProcessMesh mesh_;
  std::shared_ptr<const TrainingData> data_;
  std::unique_ptr<Prefetcher> batches_;  // this rank's, numbered step * micro_batches + micro-batch
  std::unique_ptr<LanguageModel> model_;
  std::vector<FlatBuffer> buffers_;
  std::vector<GradientBucket> buckets_;
  GradientReducer reducer_;
  std::unique_ptr<Optimizer> optimizer_;
  PhaseObserver phase_observer_;
  SkipRule skip_rule_ = SkipRule::kTogether;
  bool own_losses_finite_ = true;
};

// Ranks that share one set of experts: mesh.expert_parallel, or where it is 0 the largest that the
// world size allows (1 for a dense model).
int ExpertDegree(const RunConfig& config, int world_size);

// The model of `config` on this rank of `mesh`, with its initial values.
std::unique_ptr<LanguageModel> MakeModel(const RunConfig& config, const ProcessMesh& mesh);

}  // namespace hypermoe
