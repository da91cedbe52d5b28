// What a configuration says about parameters by patterns of their names: which do not decay
// although they have two or more dimensions (model/parameter_factory.h), and which are not trained
// at all.
#pragma once

#include <functional>
#include <vector>

#include "configs/run.pb.h"
#include "parallel/parameter.h"
#include "runtime/model_cost.h"
#include "runtime/status.h"

namespace hypermoe {

// Takes what optimizer.no_decay names out of weight decay, and freezes what train.freeze names.
// Before flat buffers are made: they are ordered by both. Returns `parameters`.
std::vector<Parameter>& ApplyPatterns(const RunConfig& config, std::vector<Parameter>& parameters);

// ConfigError that names a pattern that matches no parameter, and some name that could be matched;
// or that train.freeze leaves nothing to train. The same on every rank: all have parameters of the
// same names.
absl::Status CheckPatterns(const RunConfig& config, const std::vector<Parameter>& parameters);

// Calls `visit` for each tensor of the whole model that is trained, experts one by one. From the
// configuration alone.
void ForEachTrainedTensor(const RunConfig& config,
                          const std::function<void(ParameterGroup, at::IntArrayRef)>& visit);

// Elements of what train.freeze names, over all ranks, by group; `active` is 0. From the
// configuration alone.
ParameterCounts CountFrozen(const RunConfig& config);

}  // namespace hypermoe
