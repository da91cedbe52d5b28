// hypermoe checkpoint verify, list and reshard: what a run has of checkpoints, whether they are
// intact, and one of them as another number of ranks would have written it.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint_audit.h"
#include "runtime/checkpoint_reshard.h"
#include "runtime/memory_plan.h"

namespace hypermoe {
namespace {

struct Arguments;
using Part = absl::Status (*)(const Arguments& arguments, Communicator& world);

struct Arguments {
  Part part = nullptr;  // the command that was given
  std::string path;     // of verify and list
  ReshardOptions reshard;
};

absl::Status Verify(const Arguments& arguments, Communicator& world) {
  ASSIGN_OR_RETURN(const std::vector<CheckpointAudit> audits,
                   AuditCheckpoints(arguments.path, world));
  std::string text;
  std::vector<std::string> damaged;
  for (const CheckpointAudit& audit : audits) {
    if (audit.damage.empty()) {
      absl::StrAppend(&text, audit.checkpoint, "  intact: ", audit.tensors, " tensors, ",
                      FormatBytes(audit.bytes), ", files: ", audit.files, "\n");
      continue;
    }
    damaged.push_back(audit.checkpoint);
    absl::StrAppend(&text, audit.checkpoint, "  DAMAGED\n");
    for (const std::string& line : audit.damage) absl::StrAppend(&text, "  ", line, "\n");
  }
  RETURN_IF_ERROR(WriteResult(text, world));
  if (damaged.empty()) return absl::OkStatus();
  return DataError(absl::StrCat(damaged.size(), " of ", audits.size(),
                                " checkpoints are damaged, as standard output says in detail; the "
                                "first: ",
                                damaged.front()));
}

std::string TableLine(const ListedCheckpoint& line) {
  const std::string mark = line.latest ? "  latest" : "";
  if (!line.damage.empty()) return absl::StrCat(line.name, "  damaged: ", line.damage, mark, "\n");
  char when[32] = "";
  struct tm local;
  if (localtime_r(&line.written, &local) != nullptr)
    std::strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &local);
  return absl::StrFormat("%-13s  %-19s  %14d  %8d  %6d  %7d%s%s\n", line.name, when, line.bytes,
                         line.tensors, line.world_size, line.expert_parallel,
                         line.has_moments ? "" : "  parameters alone", mark);
}

absl::Status List(const Arguments& arguments, Communicator& world) {
  const absl::StatusOr<std::vector<ListedCheckpoint>> listed = ListCheckpoints(arguments.path);
  RETURN_IF_ERROR(Agree(world, listed.status()));
  std::string text = absl::StrFormat("%-13s  %-19s  %14s  %8s  %6s  %7s\n", "checkpoint", "written",
                                     "bytes", "tensors", "ranks", "experts");
  for (const ListedCheckpoint& line : *listed) text += TableLine(line);
  return WriteResult(text, world);
}

absl::Status Reshard(const Arguments& arguments, Communicator& world) {
  const int ranks = arguments.reshard.ranks, degree = arguments.reshard.expert_parallel;
  if (degree > 0 && ranks % degree != 0) {
    return UsageError(absl::StrCat("--expert_parallel ", degree, " does not divide --ranks ", ranks,
                                   ": give a divisor, or 0 for the largest possible one"));
  }
  UseThreads(0);
  ASSIGN_OR_RETURN(const std::string checkpoint, ReshardCheckpoint(arguments.reshard, world));
  return WriteResult(absl::StrCat("checkpoint  ", checkpoint, "\n"), world);
}

void DefineVerifyPart(CLI::App& app, Arguments* arguments) {
  app.add_option("path", arguments->path,
                 "Run folder (all of its checkpoints) or checkpoint folder")
      ->required()
      ->type_name("DIR");
  app.footer(
      "Reads every byte and compares it with the digests in manifest.json; several ranks divide "
      "the\nwork. Names each damaged file with the bytes and tensors, and ends with exit code 65 "
      "then.\nExample:\n  mpirun -np 4 hypermoe checkpoint verify runs/a");
}

void DefineListPart(CLI::App& app, Arguments* arguments) {
  app.add_option("run", arguments->path, "Run folder")->required()->type_name("DIR");
  app.footer(
      "'experts' is the number of ranks that share a set of experts; 'latest' marks the one that "
      "a\nresume begins with. Manifests are checked, not contents: `checkpoint verify` does that.\n"
      "Example:\n  hypermoe checkpoint list runs/a");
}

void DefineReshardPart(CLI::App& app, ReshardOptions* options) {
  app.add_option("--checkpoint", options->checkpoint,
                 "Run folder (its newest checkpoint) or checkpoint folder")
      ->required()
      ->type_name("DIR");
  app.add_option("--ranks", options->ranks, "Ranks that would have written it")
      ->required()
      ->check(Within(1, 1e6))
      ->type_name("N");
  app.add_option("--expert_parallel", options->expert_parallel,
                 "Ranks that share a set of experts, which divides --ranks; 0: the largest "
                 "possible")
      ->check(Within(0, 1e6))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--output", options->output, "Run folder to make; must not hold a run")
      ->required()
      ->type_name("DIR");
  app.footer(
      "A checkpoint can be loaded at any number of ranks as it is; resharded, each of them reads "
      "a\nfile of its own. Parameters and optimizer state are the same bits.\n"
      "Example:\n"
      "  hypermoe checkpoint reshard --checkpoint runs/a --ranks 8 --expert_parallel 4 --output "
      "runs/a8");
}

}  // namespace

JobBody DefineCheckpoint(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.require_subcommand(1);
  app.footer(
      "`hypermoe checkpoint COMMAND --help` lists a command's options and shows an example.");
  // Called when it is the command that was given; `app` is gone when the job runs.
  const auto define = [&](const char* name, const char* summary, Part part) {
    CLI::App* command = app.add_subcommand(name, summary);
    command->callback([arguments = arguments.get(), part] { arguments->part = part; });
    return command;
  };
  DefineVerifyPart(*define("verify", "Compare every byte with its digest", Verify),
                   arguments.get());
  DefineListPart(*define("list", "The checkpoints of a run", List), arguments.get());
  DefineReshardPart(*define("reshard", "Write it as another number of ranks would have", Reshard),
                    &arguments->reshard);
  return [arguments](std::shared_ptr<Communicator> world) {
    return arguments->part(*arguments, *world);
  };
}

}  // namespace hypermoe
