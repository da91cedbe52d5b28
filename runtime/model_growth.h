// Makes a larger model of a model, shows that both compute the same, and writes it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "parallel/communicator.h"
#include "runtime/grown_tensors.h"
#include "runtime/growth_report.h"
#include "runtime/status.h"

namespace hypermoe {

struct GrowthOptions {
  std::string from;    // model folder, run folder or checkpoint folder
  std::string output;  // a new folder: a model folder, or from a run a run folder
  // What is different in the larger model: "model.num_experts=16", in sections model and hyper. Of
  // a dense model, gates are renormalised unless they say otherwise, so that copies of one network
  // keep their weights; but not in family switch_transformers, whose folders cannot say so.
  std::vector<std::string> changes;
  double jitter = kCloneJitter;  // SeparateClones
  // Of the jitter and the tokens to compare on; from a model folder also of new parameters, which
  // in a run are keyed by its own seed.
  uint64_t seed = 1;
  bool allow_change = false;  // write also what does not compute the same
  // To compute and write in: "float32" or "float64". "": as the source is stored, in float32 if
  // that is narrower, and what was copied is written as it was.
  std::string dtype;
  int expert_parallel = 0;  // of the larger model; 0: default
};

// Compares the two on the same seeded random tokens and writes the target. Of a run the moments
// that map are carried over, and the target goes on where it stands. Collective over `world`; the
// same result on every rank. Nothing is written if there is an error: UsageError if output exists;
// ConfigError if PlanGrowth refuses, and without allow_change if they do not compute the same.
absl::StatusOr<GrowthReport> GrowModel(const GrowthOptions& options,
                                       std::shared_ptr<Communicator> world);

}  // namespace hypermoe
