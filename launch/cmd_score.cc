// hypermoe score: the metrics of a task for what a model has written, without the model.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/score_runs.h"

namespace hypermoe {
namespace {

struct Arguments {
  ScoreOptions options;
  std::string task;
  std::string templates;  // "" not given
  std::string stemmer;    // "" not given
};

absl::Status Run(const Arguments& arguments, Communicator& world) {
  if (world.size() != 1) {
    return UsageError(absl::StrCat("score works on one rank, and this job has ", world.size(),
                                   ": start it without mpirun"));
  }
  ScoreOptions options = arguments.options;
  ASSIGN_OR_RETURN(options.task, TaskNamed(arguments.task));
  if (!arguments.templates.empty())
    options.templates = arguments.templates == "t5" ? DataConfig::t5 : DataConfig::off;
  if (!arguments.stemmer.empty()) options.stemmer = arguments.stemmer == "true";
  ASSIGN_OR_RETURN(const ScoreResult result, Score(options));
  return WriteStdout(ScoreText(result));
}

std::string TaskNames() {
  std::string names;
  for (const Task* task : AllTasks())
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(task->name()));
  return names;
}

void AddFileOptions(CLI::App& app, Arguments& arguments) {
  app.add_option("--task", arguments.task, absl::StrCat("One of ", TaskNames()))
      ->required()
      ->type_name("NAME");
  app.add_option("--predictions", arguments.options.predictions,
                 "What the model wrote: JSON lines with prediction, or output as `hypermoe "
                 "generate` writes them, and maybe an id; or one JSON object of id: text, as for "
                 "SQuAD. Repeated: other seeds, of which mean and sample standard deviation are "
                 "reported. Of wikitext: JSON lines with the loss of each block, and maybe its "
                 "balance_loss")
      ->required()
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--references", arguments.options.references,
                 "What is right: the task's own file, or JSON lines with reference or references, "
                 "and maybe an id and a group")
      ->type_name("FILE");
  app.add_option("--templates", arguments.templates,
                 "How the model was trained to write: t5 or off (data.templates). Not given: "
                 "labels as t5, texts as they are published")
      ->check(CLI::IsMember({"t5", "off"}));
  app.add_option("--stemmer", arguments.stemmer,
                 "Whether ROUGE compares words' stems; not given: with --templates off")
      ->check(CLI::IsMember({"true", "false"}));
}

void AddComparison(CLI::App& app, Arguments& arguments) {
  ScoreOptions& options = arguments.options;
  CLI::Option* compare =
      app.add_option("--compare", options.compare,
                     "Predictions of another model, as above; may be repeated. Reported with the "
                     "difference and its 95 % interval over resampled examples")
          ->type_name("FILE")
          ->allow_extra_args(false);
  app.add_option("--resamples", options.bootstrap.resamples, "Of the examples, for the interval")
      ->check(Within(1, 1e7))
      ->type_name("N")
      ->capture_default_str()
      ->needs(compare);
  app.add_option("--seed", options.bootstrap.seed, "Of the resampling")
      ->check(Within(0, 1e19))
      ->type_name("N")
      ->capture_default_str()
      ->needs(compare);
}

}  // namespace

JobBody DefineScore(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  AddFileOptions(app, *arguments);
  AddComparison(app, *arguments);
  app.footer(
      "Predictions without ids belong to the examples in order, and must be as many. With ids, an "
      "example without a\n"
      "prediction scores 0, and predictions of other ids are left out; both are counted. Values "
      "are percent, but for\n"
      "perplexities. The last line of standard output is a JSON object with the metrics, of SQuAD "
      "exact_match and f1.\n"
      "Example:\n"
      "  hypermoe score --task squad --references dev-v1.1.json --predictions answers.json");
  return [arguments](std::shared_ptr<Communicator> world) { return Run(*arguments, *world); };
}

}  // namespace hypermoe
