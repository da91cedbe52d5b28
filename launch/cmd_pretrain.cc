// hypermoe pretrain: trains a language model from scratch or from another model, or goes on with a
// run that was stopped.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/training_job.h"

namespace hypermoe {

JobBody DefinePretrain(CLI::App& app) {
  app.footer(
      "Example:\n"
      "  mpirun -np 4 hypermoe pretrain --config configs/debug.textproto --run_dir runs/a \\\n"
      "    --set data.train=data/mine --set mesh.expert_parallel=4");
  return DefineTrainingJob(app, std::make_shared<TrainingArguments>());
}

}  // namespace hypermoe
