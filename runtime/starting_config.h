// What a run or a larger model starts from, and what it then is if nothing else is said.
#pragma once

#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"
#include "runtime/stored_model.h"

namespace hypermoe {

// OpenStoredModel of a model that can be trained, with every field of its configuration set.
// ConfigError for a baked one, which has no hypernetwork to go on with. Local.
absl::StatusOr<StoredModel> OpenStartingModel(const std::string& path);

// `given`, in which only that is set which the user has set, completed by what sections model and
// hyper and data.tokenizer are in `start`. Every field is set.
RunConfig StartingFrom(const RunConfig& start, const RunConfig& given);

// The configuration, every field set, of a run of which the user has set `given`: with
// train.init_from it starts from the model there; or, where run_dir has a checkpoint already, which
// needs that model no more, from the checkpoint. Local.
absl::StatusOr<RunConfig> CompleteConfig(const RunConfig& given, const std::string& run_dir);

}  // namespace hypermoe
