#include "runtime/model_transfer.h"

#include <cstdio>
#include <filesystem>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/agreement.h"
#include "runtime/bake.h"
#include "runtime/checkpoint.h"
#include "runtime/config_loader.h"
#include "runtime/config_overrides.h"
#include "runtime/file_util.h"
#include "runtime/model_folder.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_unsaid.h"
#include "runtime/model_folder_writer.h"
#include "runtime/stored_model.h"
#include "runtime/trainer.h"

namespace hypermoe {
namespace {

absl::StatusOr<ModelFolder> OpenForImport(const ImportOptions& options) {
  ASSIGN_OR_RETURN(ModelFolder model, OpenModelFolder(options.from));
  for (const std::string& assignment : options.overrides) {
    if (absl::StartsWith(assignment, "hyper.preset=")) {
      return UsageError(absl::StrCat("--set ", assignment,
                                     ": a preset is for models that begin; this one says itself "
                                     "what it is. Set the fields that should be others"));
    }
    RETURN_IF_ERROR(ApplyOverride(assignment, &model.config));
  }
  RETURN_IF_ERROR(ValidateModel(model.config));
  RETURN_IF_ERROR(CheckFolderTensors(absl::StrCat("model folder ", options.from), model));
  ASSIGN_OR_RETURN(const std::optional<std::string> latest, LatestCheckpoint(options.run_dir));
  if (latest.has_value() || std::filesystem::exists(options.run_dir + "/metrics.jsonl")) {
    return UsageError(
        absl::StrCat("--run_dir ", options.run_dir, " already holds a run: give another one"));
  }
  return model;
}

// Says on stderr what a reader of the folder will not know.
void NoteUnsaid(const ModelFolder& model, const std::string& output) {
  const auto text = FolderConfigText(model.config, model.config_json, "float32");
  const std::vector<std::string> unsaid =
      text.ok() ? UnsaidOptions(model.config, *text) : std::vector<std::string>();
  if (unsaid.empty()) return;
  std::fprintf(stderr, "note: %s/config.json has no word for %s\n", Printable(output).c_str(),
               absl::StrJoin(unsaid, ", ").c_str());
}

}  // namespace

absl::StatusOr<std::string> ImportModel(const ImportOptions& options, Communicator& world) {
  const absl::StatusOr<ModelFolder> model = OpenForImport(options);
  RETURN_IF_ERROR(Agree(world, model.status()));
  CheckpointInfo info;
  info.config = model->config;
  info.world_size = world.size();
  info.expert_parallel = ExpertDegree(model->config, world.size());
  info.threads = options.threads;
  info.source_config = model->config_json;
  RETURN_IF_ERROR(Agree(world, world.rank() == 0 ? WriteRunConfig(options.run_dir, model->config)
                                                 : absl::OkStatus()));
  RETURN_IF_ERROR(SaveParameters(options.run_dir, info, *model->tensors, world));
  return CheckpointFolder(options.run_dir, 0).path();
}

absl::Status ExportModel(const ExportOptions& options, Communicator& world) {
  const absl::StatusOr<StoredModel> stored = OpenStoredModel(options.from);
  RETURN_IF_ERROR(Agree(world, stored.status()));
  absl::StatusOr<ModelFolder> model = stored->model;
  if (options.bake) {
    model = BakeHyperExperts(stored->model);
    RETURN_IF_ERROR(Agree(world, model.status()));
  }
  RETURN_IF_ERROR(WriteModelFolder(*model, options.output, options.max_shard_bytes, world));
  if (world.rank() == 0) NoteUnsaid(*model, options.output);
  return absl::OkStatus();
}

}  // namespace hypermoe
