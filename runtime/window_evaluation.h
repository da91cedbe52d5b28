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

// Of all rows of `data`, or of about `max_rows` evenly spread ones, worked through in passes of
// about a micro-batch over all ranks, which do not cut the capacity groups of evaluation. Nothing
// if `stop`, which every rank asks before every pass, is true on any rank: that takes an all-reduce
// of one number a pass, which there is not if `stop` is empty (on all ranks). Collective over
// `world`; the same result on every rank.
std::optional<EvaluatedLosses> EvaluateWindows(LanguageModel& model, const ValidationData& data,
                                               int64_t max_rows, const RunConfig& config,
                                               Communicator& world,
                                               const std::function<bool()>& stop = {});

}  // namespace hypermoe
