// What a model is and does by its configuration alone: parameters, and floating-point operations
// for the MFU (model FLOPs utilisation) that is reported.
#pragma once

#include <cstdint>
#include <optional>

#include "configs/run.pb.h"

namespace hypermoe {

// Elements of the trainable tensors by group (parallel/parameter.h), over all ranks, each counted
// once.
struct ParameterCounts {
  int64_t dense = 0;  // all that is neither of the others: embeddings, routers, shared experts too
  int64_t hyper = 0;  // the hypernetwork with its embeddings
  int64_t experts = 0;  // of all sparse layers
  // What stands behind one token's output: `dense` (embeddings, position table and whole routers
  // included), top_k experts a sparse layer, and what is generated for its HyperExpert, but not the
  // hypernetwork that has generated it.
  int64_t active = 0;
  int64_t total() const { return dense + hyper + experts; }
};
ParameterCounts CountParameters(const RunConfig& config);

// Operations of matrix products alone, a multiply-add as 2, in forward; backward takes twice as
// many. Embedding look-ups, norms, softmax, activations and the optimizer are not counted, nor is
// what an implementation does beside the model: recomputation, or generation on every rank or for
// every token. Idle experts count nothing. With D width, F inner width, S positions, V vocabulary,
// N experts, A bottleneck, I heads times their width (D in GPT-2):
//   attention   2 (3 D I + I D) + 2 I (S + 1): position s of S attends to s + 1 keys, (S + 1) / 2
//               in the mean, with two products of 2 I each
//   feed-forward 4 D F, of each network that a token passes: one, or top_k experts
//   sparse layer router 2 D N (noisy_topk: 4 D N in training; counted always); and by kind
//               HyperExpert 4 D A, shared expert 4 D F, adapter 4 D A; where every token has a
//               HyperExpert of its own, its generation in the cheaper (bilinear) form too
//   head        2 D V
// An encoder-decoder's are those of a row by the tokens that its encoder reads, S of them, with T
// labels to a row (data.noise_density and mean_span_length say how many): each of the former
// attends to S keys, 4 I S; the decoder's T have attention as above, of T positions, feed-forward
// and head, and a second attention to the encoder's output, 4 D I + 4 I S, for which each block
// makes keys and values of all of it, S 4 D I.
struct ModelFlops {
  int64_t forward_per_token = 0;  // without generation
  int64_t experts_per_token = 0;  // the part of it that a token loses whom all experts drop
  // HyperExperts of all selections of all sparse layers, but at most one a token of the batch, once
  // an optimizer step; in evaluation they are kept, so that a token's share goes to 0. With
  // condition weights also the embeddings of all experts.
  int64_t generation_per_step = 0;

  // Forward and backward, for steps of `batch_tokens` tokens of which experts drop a share.
  double TrainingPerToken(int64_t batch_tokens, double dropped_share = 0) const {
    return 3 * (static_cast<double>(forward_per_token) -
                dropped_share * static_cast<double>(experts_per_token) +
                static_cast<double>(generation_per_step) / static_cast<double>(batch_tokens));
  }
};
// Absent for an encoder-decoder with data.task, whose rows differ in length.
std::optional<ModelFlops> CountFlops(const RunConfig& config);

// Share of what `num_ranks` processors of runtime.peak_teraflops each could compute that training
// the model took; absent if that peak is not known (0), or CountFlops is.
std::optional<double> FlopsUtilisation(const RunConfig& config, double tokens_per_second,
                                       int num_ranks, double dropped_share);

}  // namespace hypermoe
