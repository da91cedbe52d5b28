// Which of the executions of hyper.execution a job takes where auto leaves it open.
#pragma once

#include <cstdint>
#include <string>

#include "configs/run.pb.h"

namespace hypermoe {

struct ExecutionChoice {
  HyperConfig::Execution execution = HyperConfig::source;  // never auto
  std::string reason;  // for the log: what the candidates cost; "" where the configuration says
};

// For a job of `world_size` ranks, `expert_degree` of which share one set of experts. Of what the
// model allows, auto takes the execution that costs least among those whose HyperExperts fit
// kMaxGeneratedBytes on a rank, or the smallest if none does: by operations of matrix products and
// bytes kept, both of one step on one rank.
ExecutionChoice ChooseExecution(const RunConfig& config, int world_size, int expert_degree);

constexpr int64_t kMaxGeneratedBytes = int64_t{4} << 30;

// Whether HyperExperts depend on the selected set alone, so that tokens share them.
bool SharedBySelection(const HyperConfig& hyper);

}  // namespace hypermoe
