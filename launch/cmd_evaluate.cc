// hypermoe evaluate: loss and perplexity of a checkpoint over token windows, or how good it is at a
// task.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "runtime/evaluator.h"
#include "runtime/task_evaluator.h"

namespace hypermoe {
namespace {

struct Arguments {
  EvaluateOptions options;
  EvaluateTaskOptions task;
  std::string split = "validation";
  std::vector<std::string> overrides;
};

// The sections of a task, of which a trained model is given what it is evaluated by.
bool IsOfTask(const std::string& assignment) {
  constexpr const char* kFields[] = {
      "data.templates=", "data.source_length=", "data.target_length=", "data.tokenizer="};
  return absl::StartsWith(assignment, "decoding.") ||
         std::any_of(std::begin(kFields), std::end(kFields),
                     [&](const char* field) { return absl::StartsWith(assignment, field); });
}

nlohmann::ordered_json LineOf(const EvaluateResult& result) {
  return {{"loss", result.loss},
          {"perplexity", result.perplexity},
          {"tokens", result.tokens},
          {"step", result.step}};
}

nlohmann::ordered_json LineOf(const EvaluateTaskOptions& options,
                              const EvaluateTaskResult& result) {
  nlohmann::ordered_json line = {{"task", options.task}};
  for (const MetricValue& metric : result.score.values) line[metric.name] = metric.value;
  if (result.tokens > 0) {
    line["tokens"] = result.tokens;
  } else {
    line["examples"] = result.score.examples;
    if (!result.score.values.empty()) line["invalid"] = result.score.invalid;
    line["cut_sources"] = result.cut_sources;
    line["cut_targets"] = result.cut_targets;
  }
  line["seconds"] = result.seconds;
  line["checkpoint"] = result.checkpoint.empty() ? options.checkpoint : result.checkpoint;
  line["step"] = result.step;
  if (!options.output.empty()) line["output"] = options.output;
  return line;
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  std::vector<std::string> of_task, of_layout;
  for (const std::string& assignment : arguments.overrides) {
    const bool task = !arguments.task.task.empty() && IsOfTask(assignment);
    (task ? of_task : of_layout).push_back(assignment);
  }
  const absl::StatusOr<LayoutOverrides> layout =
      ReadLayoutOverrides(of_layout, ComputingFields(), world->size());
  RETURN_IF_ERROR(Agree(*world, layout.status()));
  const absl::StatusOr<RunConfig> changes = ReadGivenConfig("", of_task);
  RETURN_IF_ERROR(Agree(*world, changes.status()));
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), layout->mesh));
  UseThreads(0);
  // Ordered as people read it; doubles are written so that they read back exactly.
  nlohmann::ordered_json line;
  const int expert_parallel = layout->mesh.expert_parallel();
  if (arguments.task.task.empty()) {
    EvaluateOptions options = arguments.options;
    options.dtype = layout->dtype;
    ASSIGN_OR_RETURN(const EvaluateResult result, Evaluate(options, world, expert_parallel));
    line = LineOf(result);
  } else {
    EvaluateTaskOptions options = arguments.task;
    options.checkpoint = arguments.options.checkpoint;
    options.dtype = layout->dtype;
    options.folder = arguments.options.data;
    options.split = arguments.split == "test" ? TaskSplit::kTest : TaskSplit::kValidation;
    options.changes = *changes;
    ASSIGN_OR_RETURN(const EvaluateTaskResult result,
                     EvaluateTask(options, world, expert_parallel, stderr));
    line = LineOf(options, result);
  }
  return WriteResult(
      line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n", *world);
}

}  // namespace

JobBody DefineEvaluate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--checkpoint", arguments->options.checkpoint,
                 "Run folder (its best checkpoint where it keeps one, else its newest), checkpoint "
                 "folder or model folder")
      ->required()
      ->type_name("DIR");
  AddTaskOptions(app, &arguments->task.task, &arguments->options.data);
  CLI::Option* task = app.get_option("--task");
  app.get_option("--data")->description(
      "With --task: the folder of its files. Without: a token file made by `hypermoe prepare`, all "
      "of it; default: the run's own validation");
  app.add_option("--split", arguments->split,
                 "Which file of the task; labels may be missing from that of the test")
      ->check(CLI::IsMember({"validation", "test"}))
      ->capture_default_str()
      ->needs(task);
  app.add_option("--output", arguments->task.output,
                 "Where a line of JSON goes for each example: id, source, prediction, references; "
                 "a file of that name is replaced")
      ->type_name("FILE")
      ->needs(task);
  AddSetOption(
      app, &arguments->overrides,
      "mesh.expert_parallel, mesh.device, mesh.gpu_transport or runtime.dtype, where it should "
      "differ from training; with --task also data.templates, data.source_length, "
      "data.target_length, data.tokenizer, and the fields of decoding, which otherwise are as in a "
      "run on that task, or the task's");
  app.footer(
      "The last line of standard output is a JSON object with loss (nats a token), perplexity, "
      "tokens and step; with --task with its metrics, examples, those without a valid answer, "
      "those that were cut to the longest length, and the checkpoint.\n"
      "Examples:\n"
      "  mpirun -np 2 hypermoe evaluate --checkpoint runs/a --data data/mine\n"
      "  mpirun -np 2 hypermoe evaluate --checkpoint runs/sst2 --task sst2 --data data/SST-2 "
      "--output answers.jsonl");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
