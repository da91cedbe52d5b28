// hypermoe import: a run from a model folder.
#include <CLI/CLI.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "runtime/model_transfer.h"

namespace hypermoe {
namespace {

absl::Status CheckLayout(const ImportOptions& options, int world_size) {
  ASSIGN_OR_RETURN(const RunConfig config, LoadConfig("", options.overrides));
  return CheckExpertDegree(config.mesh().expert_parallel(), world_size);
}

absl::Status Run(ImportOptions options, std::shared_ptr<Communicator> world) {
  RETURN_IF_ERROR(Agree(*world, CheckLayout(options, world->size())));
  options.threads = UseThreads(0);
  ASSIGN_OR_RETURN(const std::string checkpoint, ImportModel(options, *world));
  return WriteResult(absl::StrCat("checkpoint  ", checkpoint, "\n"), *world);
}

}  // namespace

JobBody DefineImport(CLI::App& app) {
  auto options = std::make_shared<ImportOptions>();
  app.add_option("--from", options->from,
                 "Model folder: config.json and model.safetensors, or its shards and their index; "
                 "model types gpt2, hypermoe_gpt2, "
                 "switch_transformers and t5")
      ->required()
      ->type_name("DIR");
  app.add_option("--run_dir", options->run_dir, "Folder of the run, made if missing")
      ->required()
      ->type_name("RUN");
  AddSetOption(app, &options->overrides,
               "Change one field of the run's configuration; may be repeated");
  app.footer(
      "The run's checkpoint, of step 0, can be evaluated, generate and be exported, and a new run "
      "can start from it.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe import --from models/gpt2 --run_dir runs/gpt2");
  return [options](std::shared_ptr<Communicator> world) { return Run(*options, std::move(world)); };
}

}  // namespace hypermoe
