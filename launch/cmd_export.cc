// hypermoe export: a model folder from a run.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/agreement.h"
#include "runtime/model_folder_writer.h"
#include "runtime/model_transfer.h"

namespace hypermoe {
namespace {

struct Arguments {
  ExportOptions options;
  std::string max_shard = "5GB";
  std::vector<std::string> overrides;
};

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  ExportOptions options = arguments.options;
  ASSIGN_OR_RETURN(options.max_shard_bytes, ParseByteSize(arguments.max_shard));
  RETURN_IF_ERROR(Agree(
      *world,
      ReadLayoutOverrides(arguments.overrides, {"mesh.expert_parallel"}, world->size()).status()));
  UseThreads(0);
  RETURN_IF_ERROR(ExportModel(options, *world));
  return WriteResult(absl::StrCat("model  ", options.output, "\n"), *world);
}

}  // namespace

JobBody DefineExport(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  ExportOptions& options = arguments->options;
  app.add_option("--checkpoint", options.from,
                 "Run folder (its best checkpoint where it keeps one, else its newest), checkpoint "
                 "folder or model folder")
      ->required()
      ->type_name("DIR");
  app.add_option("--output", options.output,
                 "Model folder to make: config.json and model.safetensors; complete or not there")
      ->required()
      ->type_name("DIR");
  app.add_flag("--bake", options.bake,
               "Write the HyperExpert of each layer and expert instead of the hypernetwork; for "
               "models with one expert a token, which then cannot be trained");
  app.add_option("--max_shard", arguments->max_shard,
                 "Largest file of tensors; a larger model becomes shards and an index")
      ->type_name("SIZE")
      ->capture_default_str();
  AddSetOption(app, &arguments->overrides,
               "mesh.expert_parallel; the folder is the same at every degree");
  app.footer(
      "Example:\n"
      "  mpirun -np 2 hypermoe export --checkpoint runs/a --output models/a --max_shard 500MB");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
