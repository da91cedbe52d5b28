// hypermoe <command>: one process of a job that mpirun starts, or a job of one rank without it.
#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
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
    {"evaluate", "Loss and perplexity of a checkpoint", DefineEvaluate},
    {"generate", "Text from a checkpoint", DefineGenerate},
    {"import", "Make a run of a model folder in Hugging Face's form", DefineImport},
    {"export", "Make a model folder in Hugging Face's form", DefineExport},
    {"verify", "Compare a model with what another implementation computed for it", DefineVerify},
    {"upcycle", "Make a mixture of experts of a dense model that computes the same", DefineUpcycle},
    {"grow", "Make a model with more experts that computes the same", DefineGrow},
    {"env", "Versions, processor, memory and limits of every rank", DefineEnv},
};

// What the command line asks for.
struct Request {
  JobBody body;  // empty: `help` is all
  std::string help;
};

absl::Status UnknownCommand(const std::string& word) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.push_back(command.name);
  return UsageError(absl::StrCat("unknown command '", word, "': the nearest one is '",
                                 NearestName(word, names), "', and `hypermoe --help` lists all"));
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
  if (argc < 2) return UsageError("no command given: `hypermoe --help` lists them");
  const std::string first = argv[1];
  if (bodies.count(first) == 0 && first != "--help" && first != "-h") return UnknownCommand(first);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Request{nullptr, app.help()};
  } catch (const CLI::ParseError& error) {
    const std::string place = bodies.count(first) == 0 ? "hypermoe" : "hypermoe " + first;
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
