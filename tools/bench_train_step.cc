// Times whole training steps, or evaluation passes over as many tokens, of several models side by
// side: one of each in turn, there and back (A B C, C B A, ...), so that a drift of the machine
// meets all alike. Random tokens; everything else is what `hypermoe pretrain` runs.
#include <ATen/ops/from_blob.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "kernels/host_read.h"
#include "launch/build_identity.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "parallel/process_mesh.h"
#include "parallel/replica_check.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "runtime/process_memory.h"
#include "runtime/run_length.h"
#include "runtime/trainer.h"
#include "runtime/watchdog.h"
#include "tools/benchmark.h"
#include "tools/random_tokens.h"

namespace hypermoe {
namespace {

struct Arguments {
  std::vector<std::string> variants = {"dense", "moe", "hyper"};
  int batch = 4, sequence = 256, layers = 4, experts = 8;
  int steps = 20, warmup = 2, threads = 0;
  std::string dtype = "float32";
  bool recompute = false, zero1 = false, evaluation = false, drift_check = false, json = false;
  std::string watchdog_dir;
  std::vector<std::string> overrides;
};

// A model that is timed, and what its steps took.
struct Variant {
  std::string name;  // a kind, and what else was changed
  // Where a watchdog keeps its heartbeats during each step; "": there is none.
  std::string watchdog_dir;
  RunConfig config;
  ProcessMesh mesh;
  std::unique_ptr<Trainer> trainer;
  std::vector<double> step_seconds;  // whole step, slowest rank
  std::vector<StepSeconds> phases;
  std::vector<double> drift_seconds;  // of a comparison of the replicas after each, if asked for
  double loss = 0, bytes_sent = 0;    // of the last step
  int64_t host_reads = 0;             // of the last step's sparse layers (kernels/host_read.h)
  // Evaluation passes over these instead: no phases, nothing else that steps say. Null: steps.
  std::unique_ptr<ValidationWindows> evaluated;
};

// "moe+train.recompute=blocks" is kind moe with one more field changed.
absl::StatusOr<RunConfig> ConfigOf(const Arguments& arguments, const std::string& variant) {
  const std::vector<std::string> parts = absl::StrSplit(variant, '+');
  std::vector<std::string> settings = {
      "model.vocab_size=50257",
      "model.hidden_size=768",
      "model.num_heads=12",
      "model.ffn_size=3072",
      absl::StrCat("model.num_layers=", arguments.layers),
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
  if (arguments.recompute) settings.push_back("train.recompute=blocks");
  if (arguments.zero1) settings.push_back("optimizer.zero1=true");
  settings.insert(settings.end(), arguments.overrides.begin(), arguments.overrides.end());
  settings.push_back(absl::StrCat("model.kind=", parts[0]));
  settings.insert(settings.end(), parts.begin() + 1, parts.end());
  ASSIGN_OR_RETURN(RunConfig config, LoadConfig("", settings));
  RETURN_IF_ERROR(ValidateConfig(config));
  return config;
}

absl::StatusOr<std::vector<Variant>> ReadVariants(const Arguments& arguments, int world_size) {
  std::vector<Variant> variants;
  for (const std::string& name : arguments.variants) {
    ASSIGN_OR_RETURN(RunConfig config, ConfigOf(arguments, name));
    RETURN_IF_ERROR(CheckExpertDegree(config.mesh().expert_parallel(), world_size));
    variants.emplace_back();
    variants.back().name = name;
    variants.back().config = std::move(config);
    if (arguments.watchdog_dir.empty()) continue;
    Variant watched;
    watched.name = name + " watched";
    watched.config = variants.back().config;
    watched.watchdog_dir = arguments.watchdog_dir;
    variants.push_back(std::move(watched));
  }
  return variants;
}

void MakeTrainer(std::shared_ptr<Communicator> world, Variant* variant) {
  const RunConfig& config = variant->config;
  const int degree = ExpertDegree(config, world->size());
  constexpr int64_t kEpochsOfRows = 4;  // enough that no step sees a row twice
  const int64_t tokens = kEpochsOfRows * BatchTokens(config) * TotalSteps(config);
  variant->mesh = ProcessMesh::Create(std::move(world), degree);
  variant->trainer = std::make_unique<Trainer>(config, variant->mesh, RandomRows(config, tokens));
}

// A training step, or the loss alone of a pass over as many tokens.
StepResult StepOrPass(int64_t step, Variant* variant) {
  if (variant->evaluated == nullptr) return variant->trainer->TrainStep(step);
  StepResult result;
  result.loss = variant->trainer->Evaluate(*variant->evaluated, 0)->loss;
  return result;
}

// As many tokens as a step has, and one more to predict the last from.
std::unique_ptr<ValidationWindows> WindowsOf(const RunConfig& config) {
  const std::vector<WeightedTokens> file =
      RandomTokens(BatchTokens(config) + 1, config.model().vocab_size());
  return std::make_unique<ValidationWindows>(std::vector<TokenRange>{file[0].tokens},
                                             config.model().sequence_length());
}

// Seconds of `work`, begun together on all ranks; it has taken as long as on the slowest.
double SecondsOf(Communicator& world, const std::function<void()>& work) {
  WaitForDevice(world.device());
  world.Barrier();
  const auto begin = std::chrono::steady_clock::now();
  work();
  WaitForDevice(world.device());
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  world.AllReduceMax(at::from_blob(&seconds, {1}, at::kDouble));
  return seconds;
}

absl::Status TimeStep(int64_t step, bool counts, Communicator& world, Variant* variant) {
  std::unique_ptr<Watchdog> watchdog;
  if (!variant->watchdog_dir.empty()) {
    ASSIGN_OR_RETURN(watchdog, Watchdog::Start({variant->watchdog_dir, HostName(),
                                                variant->config.runtime().hang_seconds()},
                                               world));
  }
  StepResult result;
  const int64_t reads_before = HostRead::count();
  const double seconds = SecondsOf(world, [&] { result = StepOrPass(step, variant); });
  variant->host_reads = HostRead::count() - reads_before;
  if (!std::isfinite(result.loss)) {
    return InternalError(absl::StrCat(variant->name, ": the loss of step ", step + 1, " is ",
                                      result.loss,
                                      ", expected a finite number: lower "
                                      "optimizer.learning_rate by --set"));
  }
  variant->loss = result.loss;
  variant->bytes_sent = static_cast<double>(result.BytesSent());
  if (!counts) return absl::OkStatus();
  variant->step_seconds.push_back(seconds);
  variant->phases.push_back(result.seconds);
  return absl::OkStatus();
}

// What a run does every train.drift_check_every steps.
absl::Status TimeDriftCheck(bool counts, Communicator& world, Variant* variant) {
  std::string drift;
  const double seconds = SecondsOf(world, [&] {
    drift = FindDrift(variant->trainer->buffers(), variant->trainer->optimizer(), variant->mesh);
  });
  if (!drift.empty()) return InternalError(absl::StrCat(variant->name, ": ", drift));
  if (counts) variant->drift_seconds.push_back(seconds);
  return absl::OkStatus();
}

absl::Status TimeAll(const Arguments& arguments, Communicator& world,
                     std::vector<Variant>* variants) {
  const int count = static_cast<int>(variants->size());
  for (int64_t step = 0; step < arguments.warmup + arguments.steps; ++step) {
    for (int i = 0; i < count; ++i) {
      Variant& variant = (*variants)[step % 2 == 0 ? i : count - 1 - i];
      const bool counts = step >= arguments.warmup;
      RETURN_IF_ERROR(TimeStep(step, counts, world, &variant));
      if (arguments.drift_check) RETURN_IF_ERROR(TimeDriftCheck(counts, world, &variant));
    }
  }
  return absl::OkStatus();
}

// Shares of the median step: the median of each phase over the sum of them. all_to_all is part of
// forward and backward.
nlohmann::json Shares(const std::vector<StepSeconds>& phases) {
  const auto median = [&phases](double StepSeconds::*phase) {
    std::vector<double> values;
    for (const StepSeconds& seconds : phases) values.push_back(seconds.*phase);
    return QuartilesOf(values).median;
  };
  StepSeconds s;
  for (double StepSeconds::*phase :
       {&StepSeconds::data, &StepSeconds::forward, &StepSeconds::backward, &StepSeconds::reduce,
        &StepSeconds::optimizer, &StepSeconds::all_to_all}) {
    s.*phase = median(phase);
  }
  const double total = s.total();
  return {{"data", s.data / total},           {"forward", s.forward / total},
          {"backward", s.backward / total},   {"reduce", s.reduce / total},
          {"optimizer", s.optimizer / total}, {"all_to_all", s.all_to_all / total}};
}

nlohmann::json ResultOf(const Variant& variant) {
  const Quartiles seconds = QuartilesOf(variant.step_seconds);
  const double tokens = static_cast<double>(BatchTokens(variant.config));
  nlohmann::json result = {{"program", "hypermoe"},
                           {"work", variant.evaluated != nullptr ? "evaluation" : "training"},
                           {"kind", variant.name},
                           {"dtype", RuntimeConfig::Dtype_Name(variant.config.runtime().dtype())},
                           {"batch", variant.config.train().batch_size()},
                           {"sequence", variant.config.model().sequence_length()},
                           {"steps", variant.step_seconds.size()},
                           {"tokens_per_second", tokens / seconds.median},
                           {"lower_quartile", tokens / seconds.upper},
                           {"upper_quartile", tokens / seconds.lower},
                           {"host_reads", variant.host_reads},
                           {"loss", variant.loss}};
  if (variant.evaluated != nullptr) return result;
  result["shares"] = Shares(variant.phases);
  result["bytes_sent"] = variant.bytes_sent;
  if (variant.drift_seconds.empty()) return result;
  const double check = QuartilesOf(variant.drift_seconds).median;
  const int64_t every = variant.config.train().drift_check_every();
  result["drift_check"] = {
      {"seconds", check},
      {"every", every},
      {"share_of_steps", check / (seconds.median * static_cast<double>(every))}};
  return result;
}

// Step time of `upper` over that of `lower`, of the steps that ran beside each other.
nlohmann::json RatioOf(const Variant& upper, const Variant& lower) {
  std::vector<double> ratios;
  for (size_t i = 0; i < upper.step_seconds.size(); ++i) {
    ratios.push_back(upper.step_seconds[i] / lower.step_seconds[i] *
                     static_cast<double>(BatchTokens(lower.config)) /
                     static_cast<double>(BatchTokens(upper.config)));
  }
  const Quartiles ratio = QuartilesOf(ratios);
  return {{"time_of", upper.name},
          {"over", lower.name},
          {"ratio", ratio.median},
          {"lower_quartile", ratio.lower},
          {"upper_quartile", ratio.upper}};
}

std::string TableLine(const nlohmann::json& result, int name_width) {
  const std::string speed = absl::StrFormat(
      "%-*s %9.1f %9.1f %9.1f", name_width, result["kind"].get<std::string>(),
      result["tokens_per_second"].get<double>(), result["lower_quartile"].get<double>(),
      result["upper_quartile"].get<double>());
  const double loss = result["loss"].get<double>();
  if (!result.contains("shares")) return absl::StrFormat("%s %8.3f\n", speed, loss);
  const nlohmann::json& shares = result["shares"];
  const auto percent = [&shares](const char* phase) { return 100 * shares[phase].get<double>(); };
  return absl::StrFormat("%s %6.1f %8.1f %9.1f %7.1f %10.1f %11.1f %8.3f\n", speed, percent("data"),
                         percent("forward"), percent("backward"), percent("reduce"),
                         percent("optimizer"), percent("all_to_all"), loss);
}

std::string TableText(const nlohmann::json& machine, const std::vector<nlohmann::json>& results,
                      const std::vector<nlohmann::json>& ratios) {
  size_t width = 5;
  for (const nlohmann::json& result : results) {
    width = std::max(width, result["kind"].get<std::string>().size());
  }
  const int name_width = static_cast<int>(width);
  const nlohmann::json& first = results.front();
  std::string text = MachineText(machine);
  const bool evaluation = !first.contains("shares");
  absl::StrAppendFormat(&text, "# batch %d x %d tokens, %s, %d %s of each after the warm-up\n",
                        first["batch"].get<int>(), first["sequence"].get<int>(),
                        first["dtype"].get<std::string>(), first["steps"].get<int>(),
                        evaluation ? "evaluations" : "steps");
  absl::StrAppendFormat(
      &text, "%*s %29s   %s\n", name_width, "", "tokens/s",
      evaluation ? "" : "% of the step (all-to-all is part of forward and backward)");
  absl::StrAppendFormat(
      &text, "%-*s %9s %9s %9s %s%8s\n", name_width, "kind", "median", "lower q.", "upper q.",
      evaluation ? "" : "  data  forward  backward  reduce  optimizer  all-to-all ", "loss");
  for (const nlohmann::json& result : results) text += TableLine(result, name_width);
  for (const nlohmann::json& result : results) {
    if (!result.contains("drift_check")) continue;
    const nlohmann::json& check = result["drift_check"];
    absl::StrAppendFormat(
        &text, "comparison of the replicas, %s: %.3f ms, %.4f %% of the time of %d steps\n",
        result["kind"].get<std::string>(), 1e3 * check["seconds"].get<double>(),
        100 * check["share_of_steps"].get<double>(), check["every"].get<int64_t>());
  }
  for (const nlohmann::json& ratio : ratios) {
    absl::StrAppendFormat(&text, "time a token, %s / %s: %.4f (quartiles %.4f to %.4f)\n",
                          ratio["time_of"].get<std::string>(), ratio["over"].get<std::string>(),
                          ratio["ratio"].get<double>(), ratio["lower_quartile"].get<double>(),
                          ratio["upper_quartile"].get<double>());
  }
  absl::StrAppendFormat(&text, "peak memory of rank 0, all kinds together: %.2f GiB\n",
                        machine["peak_memory_gib"].get<double>());
  return text;
}

absl::Status Print(const std::vector<Variant>& variants, bool json, nlohmann::json machine) {
  machine["peak_memory_gib"] = static_cast<double>(ReadProcessMemory().peak_resident) / (1 << 30);
  std::vector<nlohmann::json> results, ratios;
  for (size_t i = 0; i < variants.size(); ++i) {
    results.push_back(ResultOf(variants[i]));
    for (size_t j = 0; j < i; ++j) ratios.push_back(RatioOf(variants[i], variants[j]));
  }
  if (!json) return WriteStdout(TableText(machine, results, ratios));
  std::string text = nlohmann::json{{"machine", machine}}.dump() + "\n";
  for (const nlohmann::json& result : results) text += result.dump() + "\n";
  for (const nlohmann::json& ratio : ratios) text += ratio.dump() + "\n";
  return WriteStdout(text);
}

absl::Status CheckDriftOption(const Arguments& arguments, const std::vector<Variant>& variants,
                              int world_size) {
  if (!arguments.drift_check) return absl::OkStatus();
  if (arguments.evaluation) {
    return UsageError("--drift_check belongs to training steps: leave out --evaluation");
  }
  if (world_size == 1) {
    return UsageError(
        "--drift_check: one rank has no copies to compare: start at least 2 by mpirun");
  }
  for (const Variant& variant : variants) {
    if (variant.config.train().drift_check_every() == 0) {
      return UsageError(absl::StrCat(variant.name,
                                     ": train.drift_check_every is 0, but --drift_check needs the "
                                     "steps between two comparisons"));
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  absl::StatusOr<std::vector<Variant>> read = ReadVariants(arguments, world->size());
  RETURN_IF_ERROR(Agree(*world, read.status()));
  std::vector<Variant>& variants = *read;
  RETURN_IF_ERROR(Agree(*world, CheckDriftOption(arguments, variants, world->size())));
  for (const Variant& variant : variants) {
    if (variant.config.runtime().threads() != variants.front().config.runtime().threads()) {
      return UsageError(
          absl::StrCat(variant.name, ": runtime.threads is ", variant.config.runtime().threads(),
                       ", but all models of a call run in one process: give --threads "
                       "for all of them, or make a call each"));
    }
  }
  const RunConfig& first = variants.front().config;
  for (const Variant& variant : variants) {
    if (variant.config.mesh().device() != first.mesh().device()) {
      return UsageError(absl::StrCat(variant.name, ": mesh.device differs from that of ",
                                     variants.front().name,
                                     ": give --set mesh.device for all models of a call"));
    }
  }
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), first.mesh()));
  const int threads = UseThreads(first.runtime().threads());
  const nlohmann::json machine = DescribeMachine(world->size(), threads);
  for (Variant& variant : variants) {
    MakeTrainer(world, &variant);
    if (arguments.evaluation) variant.evaluated = WindowsOf(variant.config);
  }
  RETURN_IF_ERROR(TimeAll(arguments, *world, &variants));
  return world->rank() == 0 ? Print(variants, arguments.json, machine) : absl::OkStatus();
}

void AddOptions(CLI::App& app, Arguments* arguments) {
  app.add_option("--kind", arguments->variants,
                 "Models to compare, of dense, moe, hyper, moe_share, adapter; moe+PATH=VALUE is "
                 "moe with a field of the configuration changed")
      ->delimiter(',')
      ->capture_default_str();
  AddNumber(app, "--batch", &arguments->batch, 1, "Rows of a step, over all ranks");
  AddNumber(app, "--sequence", &arguments->sequence, 2, "Tokens of a row");
  AddNumber(app, "--layers", &arguments->layers, 1,
            "Blocks, all of them sparse but for kind dense");
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
  app.add_flag("--evaluation", arguments->evaluation,
               "Evaluation passes instead of training steps");
  app.add_flag("--drift_check", arguments->drift_check,
               "Time a comparison of the replicas after each step, too");
  app.add_flag("--json", arguments->json, "JSON lines instead of tables");
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Times training steps of GPT-2-small blocks (width 768, 12 heads, vocabulary 50257).",
      "bench_train_step");
  Arguments arguments;
  AddOptions(app, &arguments);
  app.footer(
      "Example:\n"
      "  mpirun -np 2 build/bench_train_step --kind moe,hyper,hyper+hyper.execution=owner");
  return RunBenchmark(argc, argv, app, [&arguments](std::shared_ptr<Communicator> world) {
    return Run(arguments, std::move(world));
  });
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
