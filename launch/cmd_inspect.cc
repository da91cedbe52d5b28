// hypermoe inspect: what a model shows of itself, as a page with pictures and tables.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/gpus.h"
#include "runtime/agreement.h"
#include "runtime/inspection.h"

namespace hypermoe {
namespace {

struct Arguments {
  InspectOptions options;
  std::vector<std::string> overrides;
};

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  const absl::StatusOr<LayoutOverrides> layout =
      ReadLayoutOverrides(arguments.overrides, ComputingFields(), world->size());
  RETURN_IF_ERROR(Agree(*world, layout.status()));
  if (arguments.options.data.empty() && arguments.options.max_windows > 0) {
    return UsageError("--windows says how much of --data to measure, which is not given");
  }
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), layout->mesh));
  UseThreads(0);
  InspectOptions options = arguments.options;
  options.dtype = layout->dtype;
  ASSIGN_OR_RETURN(const std::string figures,
                   Inspect(options, world, layout->mesh.expert_parallel()));
  return WriteResult(figures + "\n", *world);
}

}  // namespace

JobBody DefineInspect(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  InspectOptions& options = arguments->options;
  app.add_option("path", options.path,
                 "Run folder (its newest checkpoint), checkpoint folder or model folder")
      ->required()
      ->type_name("DIR");
  app.add_option("--output", options.output,
                 "Folder to write index.html, .svg and .csv into; default: `inspect` in a run or "
                 "model folder")
      ->type_name("DIR");
  app.add_option("--data", options.data,
                 "Token file made by `hypermoe prepare`, to measure with which experts its tokens "
                 "choose")
      ->type_name("PREFIX");
  app.add_option("--windows", options.max_windows,
                 "Rows of --data to measure with, evenly spread; 0: all")
      ->check(Within(0, 1e9))
      ->type_name("N")
      ->capture_default_str();
  AddSetOption(
      app, &arguments->overrides,
      "mesh.expert_parallel, mesh.device, mesh.gpu_transport or runtime.dtype, to measure with "
      "where it should differ from training");
  app.footer(
      "Shows parameters by what they are for; load of the experts, dropped choices and the share "
      "of HyperExperts,\nas a run has recorded them and as measured on --data, with which experts "
      "are chosen together; and distances,\ncosines, correlations and t-SNE maps of the embeddings "
      "of experts and selections. The last line of standard\noutput is a JSON object with the main "
      "figures.\n"
      "Example:\n"
      "  mpirun -np 2 hypermoe inspect runs/a --data data/mine --windows 64");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
