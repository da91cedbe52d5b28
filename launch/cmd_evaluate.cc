// hypermoe evaluate: loss and perplexity of a checkpoint over token windows.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/gpus.h"
#include "runtime/agreement.h"
#include "runtime/evaluator.h"

namespace hypermoe {
namespace {

struct Arguments {
  EvaluateOptions options;
  std::vector<std::string> overrides;
};

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  const absl::StatusOr<LayoutOverrides> layout =
      ReadLayoutOverrides(arguments.overrides, ComputingFields(), world->size());
  RETURN_IF_ERROR(Agree(*world, layout.status()));
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), layout->mesh));
  UseThreads(0);
  EvaluateOptions options = arguments.options;
  options.dtype = layout->dtype;
  ASSIGN_OR_RETURN(const EvaluateResult result,
                   Evaluate(options, world, layout->mesh.expert_parallel()));

  // Ordered as people read it; doubles are written so that they read back exactly.
  const nlohmann::ordered_json line = {{"loss", result.loss},
                                       {"perplexity", result.perplexity},
                                       {"tokens", result.tokens},
                                       {"step", result.step}};
  return WriteResult(line.dump() + "\n", *world);
}

}  // namespace

JobBody DefineEvaluate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--checkpoint", arguments->options.checkpoint,
                 "Run folder (its newest checkpoint), checkpoint folder or model folder")
      ->required()
      ->type_name("DIR");
  app.add_option("--data", arguments->options.data,
                 "Token file made by `hypermoe prepare`, all of it; default: the run's own "
                 "validation tokens")
      ->type_name("PREFIX");
  AddSetOption(
      app, &arguments->overrides,
      "mesh.expert_parallel, mesh.device, mesh.gpu_transport or runtime.dtype, where it should "
      "differ from training");
  app.footer(
      "The last line of standard output is a JSON object with loss (nats a token), perplexity, "
      "tokens and step.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe evaluate --checkpoint runs/a --data data/mine");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
