// The job of `hypermoe pretrain` and `hypermoe finetune`: one run, from its command line on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "parallel/steady_seconds.h"

namespace hypermoe {

struct TrainingArguments {
  std::string config;
  std::string run_dir;
  std::string init_from;
  std::string task, folder;  // data.task and data.folder; "": as the configuration says
  std::vector<std::string> overrides;
  std::string resume = "auto";
  int64_t stop_at_step = 0;
  double max_minutes = 0;          // 0: no limit
  double start = SteadySeconds();  // of the process
  std::string profile_steps;
};

// Adds the options that both commands have to `app`. As the other Define functions (commands.h).
JobBody DefineTrainingJob(CLI::App& app, std::shared_ptr<TrainingArguments> arguments);

}  // namespace hypermoe
