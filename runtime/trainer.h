// A model in training: its parameters, gradients and optimizer state on this rank, and the training
// step.
//
// Legend: L sparse layers, N experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "model/gpt2.h"
#include "parallel/adamw.h"
#include "parallel/flat_buffer.h"
#include "parallel/process_mesh.h"
#include "runtime/dataset.h"
#include "runtime/prefetcher.h"

namespace hypermoe {

// Where the time of a step goes. Means over the ranks; seconds inside a collective include waiting
// for other ranks.
struct StepSeconds {
  double data = 0;  // waiting for a batch, which is assembled during the step before
  double forward = 0, backward = 0, reduce = 0;
  double optimizer = 0;   // zeroing of gradients, norm, clip and update, on this rank
  double all_to_all = 0;  // token dispatch: part of forward and backward
  double total() const { return data + forward + backward + reduce + optimizer; }
};

// What one step says about itself: global values, the same on every rank (but for
// seconds.optimizer).
struct StepResult {
  double loss = 0;          // mean cross-entropy of the batch, nats a token
  double balance_loss = 0;  // coefficient included, as in the next one
  double router_z_loss = 0;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  StepSeconds seconds;
  // Payload of all collectives up to the reduction of gradients, summed over ranks
  // (parallel/communicator.h, Traffic).
  double bytes_sent = 0;
  at::Tensor tokens_LN;  // int64: tokens of the batch by sparse layer and expert
  // Largest over mean tokens of an expert, in the sparse layer where it is worst; 0 for a dense
  // model.
  double LoadMaxOverMean() const;
};

class Trainer {
 public:
  // Makes the model with its initial values. Local.
  Trainer(const RunConfig& config, const ProcessMesh& mesh,
          const std::vector<WeightedTokens>& train);

  // One optimizer step on the global batch of `step` (from 0). Collective over the world; the same
  // result on every rank.
  StepResult TrainStep(int64_t step);

  // The first part of TrainStep: fills the gradients of the global batch's loss, reduced, not
  // clipped.
  StepResult ComputeGradients(int64_t step);

  // Mean cross-entropy over validation windows: all of them, or about `max_windows` evenly spread
  // ones. Collective over the world; the same result on every rank.
  double Evaluate(const ValidationWindows& windows, int64_t max_windows);

  // Names the random numbers of a step.
  RandomKey StepKey(int64_t step) const;

  Gpt2& model() { return *model_; }
  std::vector<FlatBuffer>& buffers() { return buffers_; }
  AdamW& optimizer() { return optimizer_; }

 private:
  void RunMicroBatch(int64_t step, int64_t micro_batch, StepResult* result);

  RunConfig config_;
  ProcessMesh mesh_;
  std::unique_ptr<Prefetcher> batches_;  // this rank's, numbered step * micro_batches + micro-batch
  std::unique_ptr<Gpt2> model_;
  std::vector<FlatBuffer> buffers_;
  AdamW optimizer_;
};

// Where HyperExperts are applied: hyper.execution, with auto resolved for this layout.
HyperConfig::Execution ResolveExecution(const RunConfig& config, const ProcessMesh& mesh);

// The model of `config` on this rank of `mesh`, with its initial values.
std::unique_ptr<Gpt2> MakeModel(const RunConfig& config, const ProcessMesh& mesh);

// Mean cross-entropy of `model` over windows, `rows_per_pass` at a time over all ranks. See
// Trainer::Evaluate.
double EvaluateWindows(Gpt2& model, const ValidationWindows& windows, int64_t max_windows,
                       int64_t rows_per_pass, Communicator& world);

}  // namespace hypermoe
