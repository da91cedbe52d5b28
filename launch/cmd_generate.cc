// hypermoe generate: text from a checkpoint.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/gpus.h"
#include "runtime/agreement.h"
#include "runtime/generator.h"

namespace hypermoe {
namespace {

struct Arguments {
  GenerateOptions options;
  bool greedy = false;
  std::vector<std::string> overrides;
};

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  const absl::StatusOr<LayoutOverrides> layout = ReadLayoutOverrides(
      arguments.overrides, {"mesh.expert_parallel", "mesh.device", "mesh.gpu_transport"},
      world->size());
  RETURN_IF_ERROR(Agree(*world, layout.status()));
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), layout->mesh));
  UseThreads(0);
  GenerateOptions options = arguments.options;
  if (arguments.greedy) options.temperature = 0;
  ASSIGN_OR_RETURN(const std::string text,
                   Generate(options, world, layout->mesh.expert_parallel()));
  return WriteResult(options.prompt + text + "\n", *world);
}

}  // namespace

JobBody DefineGenerate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  GenerateOptions& options = arguments->options;
  app.add_option("--checkpoint", options.checkpoint,
                 "Run folder (its newest checkpoint), checkpoint folder or model folder")
      ->required()
      ->type_name("DIR");
  app.add_option("--prompt", options.prompt, "Text to go on from")->required()->type_name("TEXT");
  app.add_option("--max_tokens", options.max_tokens, "Most tokens to add")
      ->check(Within(1, 1e9))
      ->type_name("N")
      ->capture_default_str();
  CLI::Option* temperature =
      app.add_option("--temperature", options.temperature, "Divides the logits; 0 is greedy")
          ->check(Within(0, 100))
          ->type_name("T")
          ->capture_default_str();
  app.add_flag("--greedy", arguments->greedy,
               "Always the likeliest token: the same as --temperature 0")
      ->excludes(temperature);
  app.add_option("--top_p", options.top_p,
                 "Sample from the smallest set of tokens that has this probability")
      ->check(Within(1e-6, 1))
      ->type_name("P")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the sampling")
      ->check(Within(0, 1e19))
      ->type_name("N")
      ->capture_default_str();
  AddSetOption(
      app, &arguments->overrides,
      "mesh.expert_parallel, mesh.device or mesh.gpu_transport, where it should differ from the "
      "default");
  app.footer(
      "Prints the prompt and its continuation.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe generate --checkpoint runs/a --prompt \"To be\" --max_tokens 200 "
      "--seed 1");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
