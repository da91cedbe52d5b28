// hypermoe verify: a model against what another implementation computed for it.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/gpus.h"
#include "runtime/agreement.h"
#include "runtime/verify.h"
#include "runtime/verify_report.h"

namespace hypermoe {
namespace {

struct Arguments {
  VerifyOptions options;
  std::vector<std::string> overrides;
};

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  const absl::StatusOr<LayoutOverrides> layout =
      ReadLayoutOverrides(arguments.overrides, ComputingFields(), world->size());
  RETURN_IF_ERROR(Agree(*world, layout.status()));
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), layout->mesh));
  UseThreads(0);
  VerifyOptions options = arguments.options;
  options.dtype = layout->dtype;
  ASSIGN_OR_RETURN(const VerifyResult result,
                   Verify(options, world, layout->mesh.expert_parallel()));

  RETURN_IF_ERROR(WriteResult(VerifyTable(result) + VerifyJson(result) + "\n", *world));
  return Agree(*world, VerifyStatus(result));
}

}  // namespace

JobBody DefineVerify(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--model", arguments->options.model, "Model folder")->required()->type_name("DIR");
  app.add_option("--golden", arguments->options.golden,
                 "What the model should compute; default: golden.safetensors in the model folder")
      ->type_name("FILE");
  app.add_option("--tolerance", arguments->options.tolerance,
                 "Largest difference, of the largest number of an entry (at least 1e-3); default: "
                 "1e-4, with --set runtime.dtype=float64 1e-9")
      ->check(Within(0, 1))
      ->type_name("T");
  AddSetOption(
      app, &arguments->overrides,
      "mesh.expert_parallel, mesh.device, mesh.gpu_transport or runtime.dtype (float64 for the "
      "strictest comparison)");
  app.footer(
      "Compares logits, losses, gradients, routing and decoded tokens, whatever the file has. Ends "
      "with 0 if every\n"
      "entry was compared and is within the tolerance, integers equal; with 65 otherwise. The last "
      "line of standard\n"
      "output is a JSON object with ok, tolerance, entries, failed, worst and groups.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe verify --model models/a --set runtime.dtype=float64");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
