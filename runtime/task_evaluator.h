// How good a model is at a task, and what it answers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/score.h"
#include "runtime/status.h"
#include "runtime/task.h"

namespace hypermoe {

struct EvaluateTaskOptions {
  std::string checkpoint;  // run folder, checkpoint folder or model folder
  std::string dtype;       // "" as trained
  std::string task;
  std::string folder;  // of its files; "": as in training on it
  TaskSplit split = TaskSplit::kValidation;
  // Sections data and decoding, in which only that is set which is to be otherwise than in training
  // on the task, or, of a model that was not trained on it, than by default.
  RunConfig changes;
  std::string output;  // .jsonl; "": none
};

struct EvaluateTaskResult {
  TaskScore score;  // without values for a test split without labels
  int64_t cut_sources = 0, cut_targets = 0;
  int64_t tokens = 0;  // predictions counted, of plain text
  double seconds = 0;
  std::string checkpoint;  // the folder; "" for a model folder
  int64_t step = 0;        // of it
};

// Decodes every example once and compares; of a text, the loss of every token. `output` gets one
// JSON object a line, in the order of the examples: id, source, prediction, references; bytes of a
// prediction that are not UTF-8 stand as U+FFFD in it, as they do where it is compared. The file
// gets its name once it is whole.
//
// Collective over `world`; rank 0 writes, and shows progress on `progress` unless it is null. The
// same result on every rank, but for the seconds.
absl::StatusOr<EvaluateTaskResult> EvaluateTask(const EvaluateTaskOptions& options,
                                                std::shared_ptr<Communicator> world,
                                                int expert_parallel, std::FILE* progress);

}  // namespace hypermoe
