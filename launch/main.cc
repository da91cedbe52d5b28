// hypermoe <command>: one process of a job that mpirun starts, or a job of one rank without it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "launch/commands.h"
#include "launch/distributed_init.h"
#include "launch/run_job.h"
#include "runtime/nearest_name.h"

namespace hypermoe {
namespace {

struct Command {
  const char* name;
  const char* summary;
  JobBody (*define)(CLI::App& app);
};

constexpr Command kCommands[] = {
    {"prepare", "Turn text files into a token file for training", DefinePrepare},
    {"pretrain", "Train a language model from scratch, or go on with a stopped run",
     DefinePretrain},
    {"finetune", "Train a model on the examples of a task", DefineFinetune},
    {"evaluate", "Loss and perplexity of a checkpoint, or how good it is at a task",
     DefineEvaluate},
    {"generate", "Text from a checkpoint", DefineGenerate},
    {"score", "Metrics of a task for what a model has written", DefineScore},
    {"import", "Make a run of a model folder in Hugging Face's form", DefineImport},
    {"export", "Make a model folder in Hugging Face's form", DefineExport},
    {"verify", "Compare a model with what another implementation computed for it", DefineVerify},
    {"upcycle", "Make a mixture of experts of a dense model that computes the same", DefineUpcycle},
    {"grow", "Make a model with more experts that computes the same", DefineGrow},
    {"checkpoint", "Verify, list and reshard checkpoints", DefineCheckpoint},
    {"inspect", "What a model's parameters, experts and embeddings are like, as a page",
     DefineInspect},
    {"env", "Versions, processor, memory and limits of every rank", DefineEnv},
};

// What the command line asks for.
struct Request {
  JobBody body;  // empty: `help` is all
  std::string help;
};

// That words[0], or --help, is a command of `app`, and likewise the words after it where that has
// commands of its own; `program` is how `app` is called.
absl::Status CheckCommand(const CLI::App& app, const std::string& program,
                          absl::Span<char* const> words) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  if (names.empty()) return absl::OkStatus();
  if (words.empty())
    return UsageError(absl::StrCat("no command given: `", program, " --help` lists them"));
  const std::string word = words.front();
  if (word == "--help" || word == "-h") return absl::OkStatus();
  if (std::find(names.begin(), names.end(), word) == names.end()) {
    return UsageError(absl::StrCat("unknown command '", word, "': the nearest one is '",
                                   NearestName(word, names), "', and `", program,
                                   " --help` lists all"));
  }
  return CheckCommand(*app.get_subcommand(word), absl::StrCat(program, " ", word),
                      words.subspan(1));
}

// The commands that have been parsed, as they are called: "hypermoe checkpoint list".
std::string Place(const CLI::App& app) {
  std::string place = app.get_name();
  for (const CLI::App* command : app.get_subcommands())
    absl::StrAppend(&place, " ", Place(*command));
  return place;
}

absl::StatusOr<Request> ParseCommandLine(int argc, char** argv) {
  CLI::App app("Trains mixture-of-experts language models with HyperMoE (arXiv:2402.12656).",
               "hypermoe");
  app.require_subcommand(1);
  app.footer("`hypermoe COMMAND --help` lists a command's options and shows an example.");
  std::map<std::string, JobBody> bodies;
  for (const Command& command : kCommands) {
    bodies[command.name] = command.define(*app.add_subcommand(command.name, command.summary));
  }
  RETURN_IF_ERROR(CheckCommand(app, app.get_name(),
                               absl::MakeConstSpan(argv, argc).subspan(std::min(argc, 1))));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Request{nullptr, app.help()};
  } catch (const CLI::ParseError& error) {
    const std::string place = Place(app);
    return UsageError(absl::StrCat(place, ": ", error.what(), "; see `", place, " --help`"));
  }
  return Request{bodies.at(app.get_subcommands().front()->get_name()), ""};
}

int Main(int argc, char** argv) {
  SetUpProcess();
  const absl::StatusOr<Request> request = ParseCommandLine(argc, argv);
  if (!request.ok()) return RefuseJob(request.status());
  if (request->body) return RunJob(&argc, &argv, request->body);
  if (LaunchRank() != 0) return 0;
  const absl::Status written = WriteStdout(request->help);
  return written.ok() ? 0 : RefuseJob(written);
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
