#include "runtime/starting_config.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/config_fields.h"
#include "runtime/file_util.h"

namespace hypermoe {

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
  ASSIGN_OR_RETURN(const std::optional<std::string> checkpoint, LatestCheckpoint(run_dir));
  ASSIGN_OR_RETURN(const StoredModel start,
                   OpenStartingModel(checkpoint.value_or(given.train().init_from())));
  return StartingFrom(start.model.config, given);
}

}  // namespace hypermoe
