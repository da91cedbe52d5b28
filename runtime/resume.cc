#include "runtime/resume.h"

#include <cstdio>
#include <filesystem>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/config_loader.h"
#include "runtime/grown_tensors.h"
#include "runtime/growth_plan.h"
#include "runtime/starting_config.h"

namespace hypermoe {
namespace {

class Resumption {
 public:
  Resumption(const PretrainOptions& options, const std::string& data_fingerprint,
             const ProcessMesh& mesh, Trainer& trainer)
      : options_(options),
        data_fingerprint_(data_fingerprint),
        mesh_(mesh),
        trainer_(trainer),
        first_rank_(mesh.world->rank() == 0) {}

  absl::StatusOr<std::optional<int64_t>> Execute();

 private:
  absl::StatusOr<std::vector<int64_t>> Candidates() const;
  absl::StatusOr<CheckpointInfo> CheckFits(int64_t step) const;
  absl::Status LoadFrom(int64_t step);
  absl::Status StartFromModel();
  void Say(const std::string& line) const {
    if (first_rank_) std::fprintf(stderr, "%s\n", line.c_str());
  }

  const PretrainOptions& options_;
  const std::string& data_fingerprint_;
  const ProcessMesh& mesh_;
  Trainer& trainer_;
  const bool first_rank_;
};

// Rank 0 decides for all, so that ranks on machines that do not share the folder fail instead of
// starting apart. Collective.
absl::StatusOr<std::vector<int64_t>> Resumption::Candidates() const {
  absl::StatusOr<std::vector<int64_t>> own = std::vector<int64_t>();
  if (first_rank_) own = CheckpointSteps(options_.run_dir);
  RETURN_IF_ERROR(Agree(*mesh_.world, own.status()));
  const std::string text = mesh_.world->AllGatherText(absl::StrJoin(*own, " "))[0];
  std::vector<int64_t> steps;
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    int64_t step = 0;
    if (absl::SimpleAtoi(word, &step)) steps.push_back(step);
  }
  return steps;
}

absl::StatusOr<std::optional<int64_t>> Resumption::Execute() {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, Candidates());
  const bool used = std::filesystem::exists(options_.run_dir + "/metrics.jsonl") || !steps.empty();
  RETURN_IF_ERROR(Agree(
      *mesh_.world,
      !used || options_.resume
          ? absl::OkStatus()
          : UsageError(absl::StrCat("--run_dir ", options_.run_dir,
                                    " already holds a run, and --resume=never asks for a new one: "
                                    "give another --run_dir, or --resume=auto to go on with it"))));
  if (steps.empty()) {
    if (!options_.config.train().init_from().empty())
      RETURN_IF_ERROR(Agree(*mesh_.world, StartFromModel()));
    return std::nullopt;
  }
  absl::Status newest;
  for (const int64_t step : steps) {
    const absl::Status loaded = LoadFrom(step);
    if (loaded.ok()) return step;
    // Whatever else is wrong would be wrong with the one before too.
    if (ExitCodeOf(loaded) != ExitCode::kBadData) return loaded;
    newest.Update(loaded);
    Say(absl::StrCat("warning: checkpoint ", CheckpointPath(options_.run_dir, step),
                     " is damaged and is passed over; it stays as it is until that step is saved "
                     "again, or with checkpoint.keep a later one: ",
                     loaded.message()));
  }
  return DataError(
      absl::StrCat("no checkpoint of ", options_.run_dir, " is intact (", steps.size(),
                   " tried), so there is nothing to go on from; the newest: ", newest.message()));
}

// That the checkpoint is of the run that is asked for now. Local.
absl::StatusOr<CheckpointInfo> Resumption::CheckFits(int64_t step) const {
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifestOfStep(options_.run_dir, step));
  const CheckpointInfo& info = manifest.info;
  const std::string checkpoint = CheckpointPath(options_.run_dir, step);
  if (!info.has_moments) {
    return UsageError(
        absl::StrCat(checkpoint,
                     " was imported: it has no optimizer state to go on with. Start a run from it "
                     "with --init_from ",
                     options_.run_dir, " and another --run_dir"));
  }
  RETURN_IF_ERROR(CheckResumable(info.config, options_.config, options_.run_dir));
  if (info.data_fingerprint != data_fingerprint_) {
    return ConfigError(absl::StrCat("the data of ", checkpoint, " (", info.data_fingerprint,
                                    ") and that of now (", data_fingerprint_,
                                    ") differ: give the same token files or files of the task, or "
                                    "another --run_dir"));
  }
  return info;
}

// Collective.
absl::Status Resumption::LoadFrom(int64_t step) {
  const absl::StatusOr<CheckpointInfo> info = CheckFits(step);
  RETURN_IF_ERROR(Agree(*mesh_.world, info.status()));
  const std::string checkpoint = CheckpointPath(options_.run_dir, step);
  RETURN_IF_ERROR(LoadCheckpoint(checkpoint, options_.config.model().num_experts(),
                                 trainer_.buffers(), trainer_.optimizer(), *mesh_.world));
  trainer_.model().ParametersChanged();
  Say("resuming from " + checkpoint);
  if (info->world_size != mesh_.world->size() || info->expert_parallel != mesh_.expert->size() ||
      info->threads != options_.threads) {
    Say(absl::StrCat("note: the checkpoint was written by ", info->world_size,
                     " ranks (expert degree ", info->expert_parallel, ", ", info->threads,
                     " threads each), this job has ", mesh_.world->size(), " (",
                     mesh_.expert->size(), ", ", options_.threads,
                     "): equal up to rounding, not bit for bit"));
  }
  return absl::OkStatus();
}

// The parameters of train.init_from, with a new optimizer. Local.
absl::Status Resumption::StartFromModel() {
  const RunConfig& config = options_.config;
  const std::string& from = config.train().init_from();
  ASSIGN_OR_RETURN(const StoredModel start, OpenStartingModel(from));
  ASSIGN_OR_RETURN(const GrowthPlan plan, PlanGrowth(start.model.config, config));
  std::vector<Parameter>& parameters = trainer_.model().parameters();
  const GrownTensors tensors(start.model.tensors, plan, parameters, std::nullopt);
  RETURN_IF_ERROR(FillParameters(tensors, from, config.model().num_experts(), trainer_.buffers()));
  SeparateClones(plan, kCloneJitter, config.runtime().seed(), parameters);
  trainer_.model().ParametersChanged();
  Say("starting from " + from);
  for (const std::string& change : plan.changes)
    Say("note: the model does not begin as it is there: " + change);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<int64_t>> ResumeOrStart(const PretrainOptions& options,
                                                     const std::string& data_fingerprint,
                                                     const ProcessMesh& mesh, Trainer& trainer) {
  return Resumption(options, data_fingerprint, mesh, trainer).Execute();
}

}  // namespace hypermoe
