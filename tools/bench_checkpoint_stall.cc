// What saving a checkpoint costs training: for how long Save keeps a step waiting, beside training
// and without (checkpoint.asynchronous), how much longer steps take while a save is under way, and
// after how long it is durable. Both ways in turn, by what `hypermoe pretrain` runs.
#include <ATen/ops/from_blob.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "parallel/steady_seconds.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint_saver.h"
#include "runtime/checkpoint_space.h"
#include "runtime/config_loader.h"
#include "runtime/run_length.h"
#include "runtime/trainer.h"
#include "tools/benchmark.h"
#include "tools/random_tokens.h"

namespace hypermoe {
namespace {

struct Arguments {
  std::string folder;
  int batch = 4, sequence = 256, layers = 4, experts = 8;
  int saves = 5, steps = 4, warmup = 2, threads = 0;
  bool json = false;
  std::vector<std::string> overrides;
};

absl::StatusOr<RunConfig> ConfigOf(const Arguments& arguments) {
  std::vector<std::string> settings = {
      "model.kind=moe",
      "model.vocab_size=50257",
      "model.hidden_size=768",
      "model.num_heads=12",
      "model.ffn_size=3072",
      absl::StrCat("model.num_layers=", arguments.layers),
      absl::StrCat("model.num_experts=", arguments.experts),
      absl::StrCat("model.sequence_length=", arguments.sequence),
      absl::StrCat("train.batch_size=", arguments.batch),
      "train.steps=1000000",
      absl::StrCat("runtime.threads=", arguments.threads),
      "optimizer.schedule=constant",
      "optimizer.learning_rate=1e-4",
      "optimizer.warmup_steps=0",
      "checkpoint.keep=1",
  };
  settings.insert(settings.end(), arguments.overrides.begin(), arguments.overrides.end());
  ASSIGN_OR_RETURN(RunConfig config, LoadConfig("", settings));
  RETURN_IF_ERROR(ValidateConfig(config));
  return config;
}

// Seconds on the slowest rank.
struct Timings {
  std::vector<double> step;     // without a save
  std::vector<double> beside;   // while one is under way
  std::vector<double> stall;    // that training waits in Save; the first, which takes memory, apart
  std::vector<double> durable;  // from Save's begin until the checkpoint is durable
  double first_stall = 0;
};

// One model in training that is saved one way.
class Saved {
 public:
  Saved(RunConfig config, const std::string& run_dir, const ProcessMesh& mesh)
      : world_(*mesh.world),
        trainer_(config, mesh, RandomRows(config, 64 * BatchTokens(config))),
        saver_(run_dir, InfoOf(config, mesh), mesh, 0, [](const std::string&) {}) {}

  // Steps without a save, then a save and steps until it is durable.
  absl::Status Round(int64_t steps, Timings* timings) {
    for (int64_t i = 0; i < steps; ++i) {
      ASSIGN_OR_RETURN(const double seconds, Step());
      timings->step.push_back(seconds);
    }
    const double begin = Begin();
    RETURN_IF_ERROR(saver_.Save(step_, trainer_.buffers(), trainer_.optimizer()));
    const double stall = Slowest(begin);
    if (saves_++ == 0) {
      timings->first_stall = stall;
    } else {
      timings->stall.push_back(stall);
    }
    for (const int64_t saved = step_; saver_.newest() != saved;) {
      ASSIGN_OR_RETURN(const double seconds, Step());
      timings->beside.push_back(seconds);
    }
    timings->durable.push_back(SteadySeconds() - begin);
    return absl::OkStatus();
  }

  absl::StatusOr<double> Step() {
    const double begin = Begin();
    const StepResult result = trainer_.TrainStep(
        step_++, [this] { return StepVotes{.saving = saver_.working() ? 1 : 0}; });
    RETURN_IF_ERROR(saver_.Advance(result.votes.saving));
    return Slowest(begin);
  }

 private:
  static CheckpointInfo InfoOf(const RunConfig& config, const ProcessMesh& mesh) {
    CheckpointInfo info;
    info.config = config;
    info.data_fingerprint = "random";
    info.world_size = mesh.world->size();
    info.expert_parallel = mesh.expert->size();
    return info;
  }

  double Begin() {
    WaitForDevice(world_.device());
    world_.Barrier();
    return SteadySeconds();
  }
  double Slowest(double begin) {
    WaitForDevice(world_.device());
    double seconds = SteadySeconds() - begin;
    world_.AllReduceMax(at::from_blob(&seconds, {1}, at::kDouble));
    return seconds;
  }

  Communicator& world_;
  Trainer trainer_;
  CheckpointSaver saver_;
  int64_t step_ = 0, saves_ = 0;
};

nlohmann::json ResultOf(const char* way, const RunConfig& config, const Timings& timings) {
  nlohmann::json result = {{"program", "hypermoe"},
                           {"work", "checkpoint_stall"},
                           {"way", way},
                           {"checkpoint_bytes", CheckpointBytes(config)},
                           {"saves", timings.stall.size() + 1},
                           {"first_stall_seconds", timings.first_stall},
                           {"steps_beside", timings.beside.size()}};
  const auto add = [&result](const std::string& name, const std::vector<double>& seconds) {
    if (seconds.empty()) return;
    const Quartiles quartiles = QuartilesOf(seconds);
    result[name] = {quartiles.lower, quartiles.median, quartiles.upper};
  };
  add("stall_seconds", timings.stall);
  add("durable_seconds", timings.durable);
  add("step_seconds", timings.step);
  add("step_beside_seconds", timings.beside);
  return result;
}

std::string TableText(const nlohmann::json& machine, const std::vector<nlohmann::json>& results) {
  std::string text = MachineText(machine);
  absl::StrAppendFormat(&text, "# a checkpoint of %.0f MiB; medians, in seconds\n",
                        results.front()["checkpoint_bytes"].get<double>() / (1 << 20));
  absl::StrAppend(&text,
                  "way           stall  first stall  durable after    step  step beside a save\n");
  for (const nlohmann::json& result : results) {
    const auto median = [&result](const char* name) {
      return result.contains(name) ? absl::StrFormat("%.4f", result[name][1].get<double>()) : "-";
    };
    absl::StrAppendFormat(&text, "%-12s %6s %12.4f %14s %7s %19s\n",
                          result["way"].get<std::string>(), median("stall_seconds"),
                          result["first_stall_seconds"].get<double>(), median("durable_seconds"),
                          median("step_seconds"), median("step_beside_seconds"));
  }
  return text;
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  absl::StatusOr<RunConfig> read = ConfigOf(arguments);
  RETURN_IF_ERROR(Agree(*world, read.status()));
  RunConfig config = *read;
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), config.mesh()));
  const int threads = UseThreads(config.runtime().threads());
  const nlohmann::json machine = DescribeMachine(world->size(), threads);
  const ProcessMesh mesh = ProcessMesh::Create(world, ExpertDegree(config, world->size()));
  const char* const ways[] = {"background", "waiting"};
  std::vector<std::unique_ptr<Saved>> models;
  for (const char* way : ways) {
    config.mutable_checkpoint()->set_asynchronous(way == ways[0]);
    models.push_back(
        std::make_unique<Saved>(config, absl::StrCat(arguments.folder, "/", way), mesh));
    for (int i = 0; i < arguments.warmup; ++i) RETURN_IF_ERROR(models.back()->Step().status());
  }
  Timings timings[2];
  for (int save = 0; save < arguments.saves; ++save) {
    for (const int way : {save % 2, 1 - save % 2}) {
      RETURN_IF_ERROR(models[way]->Round(arguments.steps, &timings[way]));
    }
  }
  if (world->rank() != 0) return absl::OkStatus();
  std::vector<nlohmann::json> results;
  for (const int way : {0, 1}) results.push_back(ResultOf(ways[way], config, timings[way]));
  if (!arguments.json) return WriteStdout(TableText(machine, results));
  std::string text = nlohmann::json{{"machine", machine}}.dump() + "\n";
  for (const nlohmann::json& result : results) text += result.dump() + "\n";
  return WriteStdout(text);
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Times what saving checkpoints costs the training of GPT-2-small blocks (width 768, 12 "
      "heads, vocabulary 50257) with experts.",
      "bench_checkpoint_stall");
  Arguments arguments;
  app.add_option("--folder", arguments.folder,
                 "Where the checkpoints of two runs are written; they stay")
      ->required()
      ->type_name("DIR");
  AddNumber(app, "--batch", &arguments.batch, 1, "Rows of a step, over all ranks");
  AddNumber(app, "--sequence", &arguments.sequence, 2, "Tokens of a row");
  AddNumber(app, "--layers", &arguments.layers, 1, "Blocks, all of them sparse");
  AddNumber(app, "--experts", &arguments.experts, 1, "Experts of a block");
  AddNumber(app, "--saves", &arguments.saves, 2, "Saves each way; the first counts apart");
  AddNumber(app, "--steps", &arguments.steps, 1, "Steps between a save's end and the next save");
  AddNumber(app, "--warmup", &arguments.warmup, 0, "Steps of each run before all that");
  AddNumber(app, "--threads", &arguments.threads, 0,
            "Threads of each rank; 0: its share of the cores");
  AddSetOption(app, &arguments.overrides, "Change one field of the configuration; may be repeated");
  app.add_flag("--json", arguments.json, "JSON lines instead of a table");
  app.footer("Example:\n  mpirun -np 2 build/bench_checkpoint_stall --folder /scratch/stall");
  return RunBenchmark(argc, argv, app, [&arguments](std::shared_ptr<Communicator> world) {
    return Run(arguments, std::move(world));
  });
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
