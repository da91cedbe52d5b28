#include "tools/step_benchmark.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "parallel/process_mesh.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "tools/benchmark.h"
#include "tools/step_report.h"
#include "tools/timed_model.h"

namespace hypermoe {
namespace {

struct Arguments {
  std::vector<std::string> kinds;
  int batch, sequence, layers, experts;
  int steps, warmup = 2, threads = 0;
  int new_tokens = 0;
  std::string dtype = "float32";
  bool recompute = false, zero1 = false, evaluation = false, drift_check = false, json = false;
  std::string watchdog_dir;
  std::vector<std::string> overrides;

  explicit Arguments(const StepBenchmark& defaults)
      : kinds(defaults.kinds),
        batch(defaults.batch),
        sequence(defaults.sequence),
        layers(defaults.layers),
        experts(defaults.experts),
        steps(defaults.steps) {}

  TimedWork Work() const {
    if (new_tokens > 0) return TimedWork::kGeneration;
    return evaluation ? TimedWork::kEvaluation : TimedWork::kTraining;
  }
};

// "moe+train.recompute=blocks" is kind moe with one more field changed.
absl::StatusOr<RunConfig> ConfigOf(const StepBenchmark& benchmark, const Arguments& arguments,
                                   const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '+');
  std::vector<std::string> settings = {
      absl::StrCat("model.num_experts=", arguments.experts),
      absl::StrCat("model.sequence_length=", arguments.sequence),
      absl::StrCat("train.batch_size=", arguments.batch),
      absl::StrCat("train.steps=", arguments.warmup + arguments.steps),
      absl::StrCat("runtime.dtype=", arguments.dtype),
      absl::StrCat("runtime.threads=", arguments.threads),
      "optimizer.schedule=constant",
      "optimizer.learning_rate=1e-4",
      "optimizer.warmup_steps=0",
  };
  settings.insert(settings.end(), benchmark.settings.begin(), benchmark.settings.end());
  for (const std::string& field : benchmark.layer_fields)
    settings.push_back(absl::StrCat(field, "=", arguments.layers));
  if (arguments.recompute) settings.push_back("train.recompute=blocks");
  if (arguments.zero1) settings.push_back("optimizer.zero1=true");
  settings.insert(settings.end(), arguments.overrides.begin(), arguments.overrides.end());
  settings.push_back(absl::StrCat("model.kind=", parts[0]));
  settings.insert(settings.end(), parts.begin() + 1, parts.end());
  ASSIGN_OR_RETURN(RunConfig config, LoadConfig("", settings));
  RETURN_IF_ERROR(ValidateConfig(config));
  return config;
}

absl::StatusOr<std::vector<TimedModel>> ReadModels(const StepBenchmark& benchmark,
                                                   const Arguments& arguments, int world_size) {
  std::vector<TimedModel> models;
  for (const std::string& name : arguments.kinds) {
    ASSIGN_OR_RETURN(const RunConfig config, ConfigOf(benchmark, arguments, name));
    RETURN_IF_ERROR(CheckExpertDegree(config.mesh().expert_parallel(), world_size));
    const auto add = [&](const std::string& called, const std::string& watchdog_dir) {
      models.emplace_back();
      models.back().name = called;
      models.back().config = config;
      models.back().work = arguments.Work();
      models.back().watchdog_dir = watchdog_dir;
      models.back().new_tokens = arguments.new_tokens;
    };
    add(name, "");
    if (!arguments.watchdog_dir.empty()) add(name + " watched", arguments.watchdog_dir);
  }
  return models;
}

absl::Status CheckDriftOption(const Arguments& arguments, const std::vector<TimedModel>& models,
                              int world_size) {
  if (!arguments.drift_check) return absl::OkStatus();
  if (arguments.Work() != TimedWork::kTraining) {
    return UsageError(
        "--drift_check belongs to training steps: leave out --evaluation or --new_tokens");
  }
  if (world_size == 1) {
    return UsageError(
        "--drift_check: one rank has no copies to compare: start at least 2 by mpirun");
  }
  for (const TimedModel& model : models) {
    if (model.config.train().drift_check_every() == 0) {
      return UsageError(absl::StrCat(model.name,
                                     ": train.drift_check_every is 0, but --drift_check needs the "
                                     "steps between two comparisons"));
    }
  }
  return absl::OkStatus();
}

// All models of a call share a process.
absl::Status CheckProcess(const std::vector<TimedModel>& models) {
  const TimedModel& first = models.front();
  for (const TimedModel& model : models) {
    if (model.config.runtime().threads() != first.config.runtime().threads()) {
      return UsageError(
          absl::StrCat(model.name, ": runtime.threads is ", model.config.runtime().threads(),
                       ", but all models of a call run in one process: give --threads "
                       "for all of them, or make a call each"));
    }
    if (model.config.mesh().device() != first.config.mesh().device()) {
      return UsageError(absl::StrCat(model.name, ": mesh.device differs from that of ", first.name,
                                     ": give --set mesh.device for all models of a call"));
    }
  }
  return absl::OkStatus();
}

absl::Status TimeAll(const Arguments& arguments, Communicator& world,
                     std::vector<TimedModel>* models) {
  const int count = static_cast<int>(models->size());
  for (int64_t step = 0; step < arguments.warmup + arguments.steps; ++step) {
    for (int i = 0; i < count; ++i) {
      TimedModel& model = (*models)[step % 2 == 0 ? i : count - 1 - i];
      const bool counts = step >= arguments.warmup;
      RETURN_IF_ERROR(TimeStep(step, counts, world, &model));
      if (arguments.drift_check) RETURN_IF_ERROR(TimeDriftCheck(counts, world, &model));
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const StepBenchmark& benchmark, const Arguments& arguments,
                 std::shared_ptr<Communicator> world) {
  absl::StatusOr<std::vector<TimedModel>> read = ReadModels(benchmark, arguments, world->size());
  RETURN_IF_ERROR(Agree(*world, read.status()));
  std::vector<TimedModel>& models = *read;
  RETURN_IF_ERROR(Agree(*world, CheckDriftOption(arguments, models, world->size())));
  RETURN_IF_ERROR(CheckProcess(models));
  const RunConfig& first = models.front().config;
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), first.mesh()));
  const int threads = UseThreads(first.runtime().threads());
  const nlohmann::json machine = DescribeMachine(world->size(), threads);
  for (TimedModel& model : models) RETURN_IF_ERROR(Agree(*world, SetUp(world, &model)));
  RETURN_IF_ERROR(TimeAll(arguments, *world, &models));
  return world->rank() == 0 ? PrintSteps(models, arguments.json, machine) : absl::OkStatus();
}

void AddOptions(CLI::App& app, Arguments* arguments) {
  app.add_option("--kind", arguments->kinds,
                 "Models to compare, of dense, moe, hyper, moe_share, adapter; moe+PATH=VALUE is "
                 "moe with a field of the configuration changed")
      ->delimiter(',')
      ->capture_default_str();
  AddNumber(app, "--batch", &arguments->batch, 1, "Rows of a step, over all ranks");
  AddNumber(app, "--sequence", &arguments->sequence, 2, "Tokens of a row");
  AddNumber(app, "--layers", &arguments->layers, 1, "Blocks (of each stack)");
  AddNumber(app, "--experts", &arguments->experts, 1, "Experts of a sparse block");
  AddNumber(app, "--steps", &arguments->steps, 1, "Steps of each model that are timed");
  AddNumber(app, "--warmup", &arguments->warmup, 0, "Steps of each model before those");
  AddNumber(app, "--threads", &arguments->threads, 0,
            "Threads of each rank; 0: its share of the cores");
  app.add_option("--dtype", arguments->dtype, "float32, bfloat16, float64")->capture_default_str();
  app.add_flag("--recompute", arguments->recompute, "--set train.recompute=blocks");
  app.add_flag("--zero1", arguments->zero1, "--set optimizer.zero1=true");
  AddSetOption(app, &arguments->overrides,
               "Change one field of the configuration of all models; may be repeated");
  app.add_option("--watchdog", arguments->watchdog_dir,
                 "Time each model's steps also beside a watchdog as pretrain has it, whose files "
                 "are in this folder. It looks once a second; so that there is something to "
                 "measure in short steps, --set runtime.hang_seconds=2 makes it ten times")
      ->type_name("DIR");
  auto* evaluation = app.add_flag("--evaluation", arguments->evaluation,
                                  "Evaluation passes instead of training steps");
  app.add_option("--new_tokens", arguments->new_tokens,
                 "Greedy decoding of so many tokens for each of --batch rows of input, with a "
                 "cache, instead of training steps (encoder-decoder models); 0: not")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str()
      ->excludes(evaluation);
  app.add_flag("--drift_check", arguments->drift_check,
               "Time a comparison of the replicas after each step, too");
  app.add_flag("--json", arguments->json, "JSON lines instead of tables");
}

}  // namespace

int RunStepBenchmark(int argc, char** argv, const StepBenchmark& benchmark) {
  CLI::App app(benchmark.description, benchmark.name);
  Arguments arguments(benchmark);
  AddOptions(app, &arguments);
  app.footer("Example:\n  " + benchmark.example);
  return RunBenchmark(argc, argv, app, [&](std::shared_ptr<Communicator> world) {
    return Run(benchmark, arguments, std::move(world));
  });
}

}  // namespace hypermoe
