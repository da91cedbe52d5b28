#include "launch/training_job.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "launch/build_identity.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "launch/stop_signals.h"
#include "parallel/process_mesh.h"
#include "parallel/steady_seconds.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "runtime/handshake.h"
#include "runtime/pretrain.h"
#include "runtime/progress_deadline.h"
#include "runtime/starting_config.h"
#include "runtime/stop_request.h"
#include "runtime/watchdog.h"

namespace hypermoe {
namespace {

absl::StatusOr<ProfiledSteps> ParseProfiledSteps(const std::string& text) {
  ProfiledSteps steps;
  if (text.empty()) return steps;
  const std::vector<std::string> ends = absl::StrSplit(text, ':');
  if (ends.size() != 2 || !absl::SimpleAtoi(ends[0], &steps.first) ||
      !absl::SimpleAtoi(ends[1], &steps.last) || steps.first < 1 || steps.last < steps.first) {
    return UsageError(absl::StrCat("--profile_steps is '", text,
                                   "': expected FIRST:LAST, steps counted from 1, such as 10:12"));
  }
  return steps;
}

absl::StatusOr<RunConfig> ReadConfig(const TrainingArguments& arguments, int world_size) {
  ASSIGN_OR_RETURN(RunConfig given, ReadGivenConfig(arguments.config, arguments.overrides));
  if (!arguments.init_from.empty()) given.mutable_train()->set_init_from(arguments.init_from);
  if (!arguments.task.empty()) given.mutable_data()->set_task(arguments.task);
  if (!arguments.folder.empty()) given.mutable_data()->set_folder(arguments.folder);
  ASSIGN_OR_RETURN(const RunConfig config, CompleteConfig(given, arguments.run_dir));
  RETURN_IF_ERROR(ValidateConfig(config));
  RETURN_IF_ERROR(CheckExpertDegree(config.mesh().expert_parallel(), world_size));
  return config;
}

// Before any rank reads the configuration: another build may understand it otherwise.
absl::Status CheckSameBuild(Communicator& world) {
  const absl::StatusOr<std::vector<SharedFact>> facts = BuildFacts();
  RETURN_IF_ERROR(Agree(world, facts.status()));
  return CheckAlike(world, *facts);
}

absl::Status CheckSameRun(const RunConfig& config, int threads, Communicator& world) {
  return CheckAlike(world,
                    {{"the configuration", ConfigText(config),
                      "give all ranks the same --config file and the same --set options"},
                     {"the number of threads", absl::StrCat(threads),
                      "set runtime.threads, or give every rank as many cores as the others"}});
}

// Where rank 0 sees that tokens will travel between machines although they need not.
void WarnOfSplitExpertGroups(const ProcessMesh& mesh) {
  const std::vector<std::string> hosts = mesh.world->AllGatherText(HostName());
  const int degree = mesh.expert->size();
  for (int rank = 0; mesh.world->rank() == 0 && rank < mesh.world->size(); ++rank) {
    const int first = rank / degree * degree;
    if (hosts[rank] == hosts[first]) continue;
    std::fprintf(
        stderr,
        "note: ranks %d (%s) and %d (%s) share one set of experts, so tokens travel between "
        "machines: set mesh.expert_parallel to a divisor of the ranks of a machine to keep "
        "them within one\n",
        first, hosts[first].c_str(), rank, hosts[rank].c_str());
    return;
  }
}

// Rank 0 looks at the clock and the shared folder for all.
std::vector<StopSource> StopSources(const TrainingArguments& arguments, int rank) {
  std::vector<StopSource> sources = {StopSignal};
  if (rank > 0) return sources;
  sources.push_back(StopFile(arguments.run_dir));
  if (arguments.max_minutes > 0)
    sources.push_back(TimeLimit(arguments.max_minutes, arguments.start));
  return sources;
}

absl::Status Run(const TrainingArguments& arguments, std::shared_ptr<Communicator> world) {
  auto until_watched = std::make_unique<ProgressDeadline>(kStartSeconds, world->rank());
  ASSIGN_OR_RETURN(const ProfiledSteps profile, ParseProfiledSteps(arguments.profile_steps));
  RETURN_IF_ERROR(CheckSameBuild(*world));
  absl::StatusOr<RunConfig> config = ReadConfig(arguments, world->size());
  RETURN_IF_ERROR(Agree(*world, config.status()));

  PretrainOptions options;
  options.config = *std::move(config);
  options.run_dir = arguments.run_dir;
  options.resume = arguments.resume == "auto";
  options.stop_at_step = arguments.stop_at_step;
  options.profile = profile;
  options.stop_sources = StopSources(arguments, world->rank());
  options.threads = UseThreads(options.config.runtime().threads());
  RETURN_IF_ERROR(CheckSameRun(options.config, options.threads, *world));
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Watchdog> watchdog,
      Watchdog::Start({options.run_dir, HostName(), options.config.runtime().hang_seconds()},
                      *world));
  until_watched.reset();
  const int degree = ExpertDegree(options.config, world->size());
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), options.config.mesh()));
  const ProcessMesh mesh = ProcessMesh::Create(world, degree);
  if (watchdog != nullptr) watchdog->WatchTransport(mesh);
  WarnOfSplitExpertGroups(mesh);
  return Pretrain(options, mesh);
}

}  // namespace

JobBody DefineTrainingJob(CLI::App& app, std::shared_ptr<TrainingArguments> arguments) {
  app.callback(TakeStopSignals);  // as soon as this is the command
  app.add_option("--config", arguments->config,
                 "Configuration as protobuf text (configs/run.proto documents its fields)")
      ->required()
      ->type_name("FILE");
  app.add_option("--run_dir", arguments->run_dir,
                 "Folder of the run, made if missing: config.textproto, metrics.jsonl, TensorBoard "
                 "events, checkpoints/")
      ->required()
      ->type_name("DIR");
  app.add_option(
         "--init_from", arguments->init_from,
         "Model folder, run or checkpoint to start a new run from, with a new optimizer; fields "
         "of model and hyper that the configuration does not give are as there. The same as "
         "--set train.init_from=DIR")
      ->type_name("DIR");
  AddSetOption(app, &arguments->overrides,
               "Change one field of the configuration; may be repeated");
  app.add_option(
         "--resume", arguments->resume,
         "auto: go on from the newest intact checkpoint of --run_dir, if it has any; never: "
         "refuse a folder that holds a run")
      ->check(CLI::IsMember({"auto", "never"}))
      ->capture_default_str();
  app.add_option(
         "--stop_at_step", arguments->stop_at_step,
         "Save and stop after this step, with exit code 75; the same command without it goes on")
      ->check(Within(1, 1e9))
      ->type_name("N");
  app.add_option("--max_minutes", arguments->max_minutes,
                 "Save and stop, with exit code 75, so long after the start of the program, at the "
                 "end of the step that is under way: leave time for that and the save. The same "
                 "command goes on")
      ->check(Within(1e-3, 1e6))
      ->type_name("M");
  app.add_option("--profile_steps", arguments->profile_steps,
                 "Write a Chrome trace of these steps from every rank into DIR/traces")
      ->type_name("FIRST:LAST");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
