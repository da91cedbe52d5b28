// Runs of a few steps in a folder that all ranks share, for tests that stop and resume them.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/keyed_random.h"
#include "runtime/pretrain.h"
#include "runtime/token_file.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {

// A folder that all ranks share, with two token files in it.
class TinyRuns {
 public:
  TinyRuns() {
    if (World()->rank() == 0) {
      WriteTokens("tokens", 3000, 2);
      WriteTokens("more", 1000, 3);
    }
    World()->Barrier();
  }

  void WriteTokens(const std::string& name, uint64_t count, uint64_t stream) {
    auto writer = TokenFileWriter::Create(folder_ + "/" + name, 257);
    ASSERT_TRUE(writer.ok()) << writer.status();
    std::vector<int32_t> ids;
    for (uint64_t i = 0; i < count; ++i)
      ids.push_back(static_cast<int32_t>(UniformAt({1, stream}, i) * 256));
    ASSERT_TRUE((*writer)->Append(ids).ok());
    ASSERT_TRUE((*writer)->EndDocument().ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  // A run of 12 steps, saved every 4, evaluated every 3.
  PretrainOptions Options(const std::string& run,
                          RuntimeConfig::Dtype dtype = RuntimeConfig::float32) const {
    PretrainOptions options;
    options.config = TinyConfig(ModelConfig::hyper, 6, dtype);
    options.config.mutable_data()->add_train()->set_prefix(folder_ + "/tokens");
    TrainFile& more = *options.config.mutable_data()->add_train();
    more.set_prefix(folder_ + "/more");
    more.set_weight(2.5);
    // Of 96 tokens a step.
    options.config.mutable_train()->set_steps(0);
    options.config.mutable_train()->set_tokens(1100);
    options.config.mutable_train()->set_micro_batches(2);
    options.config.mutable_train()->set_validation_every(3);
    options.config.mutable_checkpoint()->set_every(4);
    options.run_dir = folder_ + "/" + run;
    return options;
  }

 protected:
  const SharedFolder shared_;
  const std::string& folder_ = shared_.path();
};

class ResumeTest : public testing::Test, protected TinyRuns {};

}  // namespace hypermoe
