#include "runtime/starting_config.h"

#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/config_fields.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

// Where the model of the run in `run_dir` is described: a checkpoint of it, or else `init_from`. A
// damaged one is for the resume to report; all checkpoints of a run say the same of the model.
absl::StatusOr<std::string> ModelOfRun(const std::string& run_dir, const std::string& init_from) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CheckpointSteps(run_dir));
  absl::Status newest;
  for (const int64_t step : steps) {
    const absl::Status readable = ReadManifestOfStep(run_dir, step).status();
    if (readable.ok()) return CheckpointPath(run_dir, step);
    newest.Update(readable);
  }
  if (!newest.ok()) return newest;
  return init_from;
}

}  // namespace

absl::StatusOr<StoredModel> OpenStartingModel(const std::string& path) {
  ASSIGN_OR_RETURN(StoredModel stored, OpenStoredModel(path));
  if (stored.model.config.hyper().baked()) {
    return ConfigError(absl::StrCat(Printable(path),
                                    " is a baked model: its HyperExperts stand there without the "
                                    "hypernetwork that made them; give the model it was made of"));
  }
  FillDefaults(&stored.model.config);
  return stored;
}

RunConfig StartingFrom(const RunConfig& start, const RunConfig& given) {
  RunConfig config = given;
  *config.mutable_model() = start.model();
  *config.mutable_hyper() = start.hyper();
  // A list that is given replaces the other, instead of being added to it.
  if (given.model().sparse_layers_size() > 0) config.mutable_model()->clear_sparse_layers();
  config.mutable_model()->MergeFrom(given.model());
  config.mutable_hyper()->MergeFrom(given.hyper());
  if (!given.data().has_tokenizer()) config.mutable_data()->set_tokenizer(start.data().tokenizer());
  FillDefaults(&config);
  return config;
}

absl::StatusOr<RunConfig> CompleteConfig(const RunConfig& given, const std::string& run_dir) {
  if (given.train().init_from().empty()) {
    RunConfig config = given;
    FillDefaults(&config);
    return config;
  }
  ASSIGN_OR_RETURN(const std::string path, ModelOfRun(run_dir, given.train().init_from()));
  ASSIGN_OR_RETURN(const StoredModel start, OpenStartingModel(path));
  return StartingFrom(start.model.config, given);
}

}  // namespace hypermoe
