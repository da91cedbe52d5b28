// Models whose steps are timed beside each other, and what those took.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/dataset.h"
#include "runtime/status.h"
#include "runtime/trainer.h"

namespace hypermoe {

// What is timed.
enum class TimedWork {
  kTraining,    // training steps
  kEvaluation,  // the loss alone of as many rows
  kGeneration,  // greedy continuations of as many rows' inputs (encoder-decoder models)
};

struct TimedModel {
  std::string name;  // a kind, and what else was changed
  RunConfig config;
  TimedWork work = TimedWork::kTraining;
  // Where a watchdog keeps its heartbeats during each step; "": there is none.
  std::string watchdog_dir;
  int64_t new_tokens = 0;  // of each row, in generation

  ProcessMesh mesh;
  std::unique_ptr<Trainer> trainer;
  std::unique_ptr<ValidationWindows> windows;  // what is evaluated, or generated from

  std::vector<double> step_seconds;   // whole step, slowest rank
  std::vector<StepSeconds> phases;    // of training steps
  std::vector<double> drift_seconds;  // of a comparison of the replicas after each, if asked for
  double loss = 0, bytes_sent = 0;    // of the last step; there are none in generation
  int64_t host_reads = 0;             // of the last step's sparse layers (kernels/host_read.h)

  // That a step of its work has: in training and evaluation what the model reads, and of an
  // encoder-decoder model what its decoder is to say, too; in generation what it says.
  int64_t Tokens() const;
};

// Makes `model`'s trainer and the random tokens that its work takes, from its configuration, which
// has been validated.
absl::Status SetUp(std::shared_ptr<Communicator> world, TimedModel* model);

// Step `step` (from 0) of the model's work, whose figures are kept if it `counts`. Collective over
// the world, as is the next.
absl::Status TimeStep(int64_t step, bool counts, Communicator& world, TimedModel* model);

// What a run does every train.drift_check_every steps.
absl::Status TimeDriftCheck(bool counts, Communicator& world, TimedModel* model);

}  // namespace hypermoe
