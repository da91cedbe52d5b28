// Whether a model computes what a golden file says (README, "Model folders").
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/golden_comparison.h"
#include "runtime/golden_file.h"
#include "runtime/loaded_model.h"
#include "runtime/status.h"

namespace hypermoe {

struct VerifyOptions {
  std::string model;                // what LoadModel takes; meant for model folders
  std::string golden;               // "": golden.safetensors in `model`
  std::optional<double> tolerance;  // none: 1e-9 with dtype float64, 1e-4 otherwise
  std::string dtype;                // "": as the model says
};

struct VerifyResult {
  std::string golden;  // path of the file
  double tolerance = 0;
  std::vector<EntryDifference> entries;  // by name, all of the file
};

// Runs the model in evaluation mode over the file's rows as one micro-batch that is cut over the
// ranks, with gradients if the file has some, decodes what it says, and compares: all entries of
// the file, by name. Collective over the world of the model, whose gradients it overwrites. The
// same result on every rank but for gradients that differ between ranks against all rules.
std::vector<EntryDifference> CompareWithGolden(LoadedModel& loaded, const GoldenFile& golden,
                                               double tolerance);

// Loads both and compares. That entries differ is no error here. Collective over `world`; the same
// status on every rank.
absl::StatusOr<VerifyResult> Verify(const VerifyOptions& options,
                                    std::shared_ptr<Communicator> world, int expert_parallel);

}  // namespace hypermoe
