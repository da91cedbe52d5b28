// Whole runs of a tiny model (runtime/pretrain.h), and what they have left in their folders.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/pretrain.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {

// A folder that all ranks share, with two token files in it.
class TinyRuns {
 public:
  TinyRuns();

  // Writes the token file `name` there, with `count` ids that `stream` chooses.
  void WriteTokens(const std::string& name, uint64_t count, uint64_t stream) const;

  // A run of 12 steps in the folder `run` there: a validation every 3 steps, a checkpoint every 4.
  PretrainOptions Options(const std::string& run,
                          RuntimeConfig::Dtype dtype = RuntimeConfig::float32) const;

 protected:
  const SharedFolder shared_;
  const std::string& folder_ = shared_.path();
};

class TinyRunTest : public testing::Test, protected TinyRuns {};

// Lines of metrics.jsonl without what depends on the clock or the process.
std::vector<std::string> Metrics(const std::string& run_dir);

// Every tensor of a run's newest checkpoint, moments included.
NamedTensors StoredTensors(const std::string& run_dir);

// That all tensors of the newest checkpoints of two runs are the same, bit for bit.
void ExpectSameTensors(const std::string& run_dir, const std::string& expected_run_dir);

}  // namespace hypermoe
