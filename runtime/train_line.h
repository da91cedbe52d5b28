// What a training step says in metrics.jsonl and in messages.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "runtime/trainer.h"

namespace hypermoe {

// How fast a step was.
struct StepRate {
  double tokens_per_second = 0;
  std::optional<double> mfu;  // absent: the processor's peak is not known
};

// The line of the step that is the `step`th of the run, from 1, which has now seen `tokens` tokens.
// Event files (runtime/event_file.h) show every number in it that stands at the top.
nlohmann::json TrainLine(int64_t step, int64_t tokens, const StepRate& rate,
                         const StepResult& result);

// "loss 5.5578, gradient norm NaN".
std::string NumbersText(const StepResult& result);

}  // namespace hypermoe
