// The loss of a model on rows that it is validated with.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/communicator.h"
#include "runtime/training_data.h"

namespace hypermoe {

struct EvaluatedLosses {
  double loss = 0;    // mean cross-entropy, nats a label
  double router = 0;  // the router's losses, coefficients included: of a task of plain text alone
  bool operator==(const EvaluatedLosses&) const = default;
};

// Calls `run` with this rank's rows, on the host, of each pass over `data`: over all rows of it or
// about `max_rows` evenly spread ones (0: all). A pass is about a micro-batch over all ranks, which
// does not cut the capacity groups of evaluation. Equally often on every rank, with no rows too.
// Ends early where `run` returns false, which it must then on all ranks. Without gradients. Returns
// how many rows all ranks have worked through.
int64_t ForEachPass(const ValidationData& data, int64_t max_rows, const RunConfig& config,
                    const Communicator& world, const std::function<bool(const Batch& batch)>& run);

// Of the rows of ForEachPass. Nothing if `stop`, which every rank asks before every pass, is true
// on any rank: that takes an all-reduce of one number a pass, which there is not if `stop` is empty
// (on all ranks). Collective over `world`; the same result on every rank.
std::optional<EvaluatedLosses> EvaluateWindows(LanguageModel& model, const ValidationData& data,
                                               int64_t max_rows, const RunConfig& config,
                                               Communicator& world,
                                               const std::function<bool()>& stop = {});

}  // namespace hypermoe
