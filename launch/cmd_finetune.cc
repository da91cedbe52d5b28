// hypermoe finetune: trains a model on a task's examples, or goes on with such a run.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/training_job.h"

namespace hypermoe {

JobBody DefineFinetune(CLI::App& app) {
  auto arguments = std::make_shared<TrainingArguments>();
  AddTaskOptions(app, &arguments->task, &arguments->folder);
  app.get_option("--task")->required();
  app.get_option("--data")->required();
  app.footer(
      "The rest is as in `hypermoe pretrain`: --task and --data are the fields data.task and "
      "data.folder.\n"
      "Example:\n"
      "  mpirun -np 4 hypermoe finetune --config configs/finetune.textproto --task sst2 \\\n"
      "    --data data/SST-2 --init_from models/switch-base-8 --run_dir runs/sst2");
  return DefineTrainingJob(app, std::move(arguments));
}

}  // namespace hypermoe
