// hypermoe upcycle and hypermoe grow: a larger model that computes the same.
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "runtime/model_growth.h"

namespace hypermoe {
namespace {

struct Arguments {
  GrowthOptions options;
  int experts = 0;
  int top_k = 0;             // 0: not given
  std::string kind, router;  // upcycle; "": not given
  std::string renormalize;   // likewise
  bool upcycle = false;
  std::vector<std::string> overrides;
};

// The changes that the command line asks for; those of --set come last and win. What --set says of
// the layout is put into `options` instead.
absl::StatusOr<GrowthOptions> OptionsOf(const Arguments& arguments, int world_size) {
  GrowthOptions options = arguments.options;
  const auto change = [&](const std::string& path, const std::string& value) {
    options.changes.push_back(absl::StrCat(path, "=", value));
  };
  change("model.num_experts", absl::StrCat(arguments.experts));
  if (arguments.top_k > 0) change("model.top_k", absl::StrCat(arguments.top_k));
  if (arguments.upcycle) {
    change("model.kind", arguments.kind);
    if (!arguments.renormalize.empty()) change("model.renormalize", arguments.renormalize);
    if (!arguments.router.empty()) change("model.router", arguments.router);
  }
  std::vector<std::string> layout;
  for (const std::string& assignment : arguments.overrides) {
    const bool of_model =
        absl::StartsWith(assignment, "model.") || absl::StartsWith(assignment, "hyper.");
    (of_model ? options.changes : layout).push_back(assignment);
  }
  ASSIGN_OR_RETURN(
      const LayoutOverrides overrides,
      ReadLayoutOverrides(layout, {"mesh.expert_parallel", "runtime.dtype"}, world_size));
  options.expert_parallel = overrides.mesh.expert_parallel();
  options.dtype = overrides.dtype;
  return options;
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  const absl::StatusOr<GrowthOptions> options = OptionsOf(arguments, world->size());
  RETURN_IF_ERROR(Agree(*world, options.status()));
  UseThreads(0);
  ASSIGN_OR_RETURN(const GrowthReport report, GrowModel(*options, world));
  return WriteResult(absl::StrCat(Describe(report), "output   ", options->output, "\n"), *world);
}

std::shared_ptr<Arguments> DefineCommon(CLI::App& app, const std::string& from) {
  auto arguments = std::make_shared<Arguments>();
  GrowthOptions& options = arguments->options;
  app.add_option("--from", options.from, from)->required()->type_name("DIR");
  app.add_option(
         "--output", options.output,
         "New folder: a model folder, or of a run a run folder that goes on with its steps, "
         "data and optimizer")
      ->required()
      ->type_name("DIR");
  app.add_option("--experts", arguments->experts, "Experts of each sparse block")
      ->required()
      ->check(Within(1, 4096))
      ->type_name("N");
  app.add_option("--top_k", arguments->top_k, "Experts of a token")
      ->check(Within(1, 4096))
      ->type_name("K");
  app.add_option("--jitter", options.jitter,
                 "Noise on what routers know of each expert, against their root mean square, that "
                 "separates "
                 "clones after the comparison; 0: they stay tied, and only one of each learns")
      ->check(Within(0, 100))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of jitter, new parameters and the tokens to compare on")
      ->capture_default_str();
  app.add_flag("--allow_change", options.allow_change,
               "Write also a model that does not compute the same, and report the difference");
  return arguments;
}

JobBody BodyOf(std::shared_ptr<Arguments> arguments) {
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace

JobBody DefineUpcycle(CLI::App& app) {
  auto arguments = DefineCommon(app,
                                "Dense model to start from (or one of kind moe, to get what "
                                "another kind adds): model folder, run or checkpoint");
  arguments->upcycle = true;
  app.add_option("--kind", arguments->kind, "What the model becomes")
      ->required()
      ->check(CLI::IsMember({"moe", "hyper", "moe_share", "adapter"}));
  app.add_option("--router", arguments->router, "switch or noisy_topk")
      ->check(CLI::IsMember({"switch", "noisy_topk"}));
  app.add_option(
         "--renormalize", arguments->renormalize,
         "Whether gates are divided by their sum, so that copies of one network keep their "
         "weights. With --top_k 1 gates are then 1, and only balance losses train the router; "
         "false scales the experts' last matrix instead. Default: true, but false from a t5, which "
         "becomes a switch_transformers")
      ->check(CLI::IsMember({"true", "false"}));
  AddSetOption(app, &arguments->overrides,
               "Another field of the new model (model.*, hyper.*), mesh.expert_parallel or "
               "runtime.dtype; may be repeated");
  app.footer(
      "Every expert is a copy of the dense network it replaces. Logits and losses of both models "
      "on "
      "random tokens are compared before anything is written.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe upcycle --from models/gpt2 --experts 8 --kind hyper \\\n"
      "    --set hyper.bottleneck_dim=64 --output models/gpt2_hyper");
  return BodyOf(std::move(arguments));
}

JobBody DefineGrow(CLI::App& app) {
  auto arguments =
      DefineCommon(app, "Mixture of experts to start from: model folder, run folder or checkpoint");
  AddSetOption(app, &arguments->overrides, "mesh.expert_parallel or runtime.dtype");
  app.footer(
      "--experts is a multiple of what is there: expert e + c N is clone c of expert e of N. With "
      "more "
      "than one expert a token, --top_k has to be multiplied likewise. Logits and losses of both "
      "models on random tokens are compared before anything is written.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe grow --from runs/a --experts 16 --output runs/a16");
  return BodyOf(std::move(arguments));
}

}  // namespace hypermoe
