// Which parameters decay: those with two or more dimensions (model/parameter_factory.h), but for
// what the configuration names.
#pragma once

#include <vector>

#include "configs/run.pb.h"
#include "parallel/parameter.h"
#include "runtime/status.h"

namespace hypermoe {

// Takes what optimizer.no_decay names out of weight decay. Before flat buffers are made: they are
// ordered by decay. Returns `parameters`.
std::vector<Parameter>& ApplyNoDecay(const OptimizerConfig& config,
                                     std::vector<Parameter>& parameters);

// ConfigError that names a pattern of optimizer.no_decay that matches no parameter, and some names
// that could be matched. The same on every rank: all have parameters of the same names.
absl::Status CheckNoDecay(const OptimizerConfig& config, const std::vector<Parameter>& parameters);

}  // namespace hypermoe
