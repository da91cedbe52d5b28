// How tokens of a text fall on a model's experts, by passing it through the model.
//
// Legend: L sparse layers, N experts.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/loaded_model.h"
#include "runtime/matrix.h"
#include "runtime/training_data.h"

namespace hypermoe {

struct MeasuredUsage {
  int64_t windows = 0;
  // Choices of experts, in evaluation mode; positions that are filled up are routed, and count, as
  // all others do.
  Matrix tokens_LN;
  Matrix dropped_LN;  // those of them for which the expert had no room
  // With several experts a token, by sparse layer: how many tokens have chosen both, [N,N],
  // symmetric, with the tokens of an expert on the diagonal. Otherwise empty.
  std::vector<Matrix> together_L;
  // StepResult::hyper_shares (trainer.h).
  std::vector<double> hyper_shares_L;
};

// Over all windows, or about `max_windows` evenly spread ones (0: all); `windows` are the same on
// every rank. Of a model with sparse layers. Collective over the model's world; the same result on
// every rank, and, where rounding changes no choice, at every number of ranks.
MeasuredUsage MeasureUsage(LoadedModel& loaded, const ValidationData& windows, int64_t max_windows);

}  // namespace hypermoe
