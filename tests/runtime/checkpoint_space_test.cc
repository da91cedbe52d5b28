#include "runtime/checkpoint_space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/checkpoint_fixture.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

CheckpointConfig Config(int64_t every, int32_t keep) {
  CheckpointConfig config;
  config.set_every(every);
  config.set_keep(keep);
  return config;
}

TEST(CountCheckpointsTest, CountsThoseDueAndTheLast) {
  EXPECT_EQ(CountCheckpoints(Config(0, 0), 0, 100, 0).written, 1);
  EXPECT_EQ(CountCheckpoints(Config(30, 0), 0, 100, 0).written, 4);   // 30, 60, 90, 100
  EXPECT_EQ(CountCheckpoints(Config(50, 0), 0, 100, 0).written, 2);   // 50, 100
  EXPECT_EQ(CountCheckpoints(Config(30, 0), 60, 100, 2).written, 2);  // 90, 100
  EXPECT_EQ(CountCheckpoints(Config(30, 0), 100, 100, 4).written, 0);
}

TEST(CountCheckpointsTest, OldOnesMakeRoom) {
  EXPECT_EQ(CountCheckpoints(Config(10, 0), 0, 100, 0).at_a_time, 10);
  EXPECT_EQ(CountCheckpoints(Config(10, 3), 0, 100, 0).at_a_time, 4);  // and the one being written
  EXPECT_EQ(CountCheckpoints(Config(10, 3), 0, 20, 0).at_a_time, 2);   // never so many
  EXPECT_EQ(CountCheckpoints(Config(10, 3), 50, 100, 2).at_a_time, 2);
  EXPECT_EQ(CountCheckpoints(Config(10, 3), 50, 100, 9).at_a_time, 1);
}

// Against a checkpoint that was really written.
TEST(CheckpointBytesTest, IsWhatACheckpointTakes) {
  for (const auto kind : {ModelConfig::dense, ModelConfig::moe, ModelConfig::hyper}) {
    const RunConfig config = TinyConfig(kind, 6, RuntimeConfig::float32);
    const ProcessMesh mesh = OneRankMesh();
    Trainer trainer(config, mesh, TinyRows(config));
    const TemporaryFolder run;
    CheckpointInfo info;
    info.config = config;
    info.step = 1;
    info.data_fingerprint = "tiny";
    ASSERT_TRUE(
        SaveCheckpoint(run.path(), info, trainer.buffers(), trainer.optimizer(), mesh).ok());
    int64_t written = 0;
    for (const auto& entry : fs::directory_iterator(run / "checkpoints/step_00000001"))
      written += static_cast<int64_t>(entry.file_size());
    const auto ratio = static_cast<double>(CheckpointBytes(config)) / static_cast<double>(written);
    EXPECT_GE(ratio, 0.9) << ModelConfig::Kind_Name(kind);
    EXPECT_LE(ratio, 1.5) << ModelConfig::Kind_Name(kind);
  }
}

// A configuration whose checkpoints take about `bytes`, by the size of its vocabulary.
RunConfig Taking(double bytes, int32_t keep) {
  RunConfig config = TinyConfig(ModelConfig::dense, 1, RuntimeConfig::float32);
  config.mutable_model()->set_hidden_size(64);
  config.mutable_model()->set_vocab_size(static_cast<int32_t>(bytes / (64 * 4 * 3)));
  config.mutable_train()->set_steps(100);
  config.mutable_checkpoint()->set_every(10);
  config.mutable_checkpoint()->set_keep(keep);
  return config;
}

TEST(CheckSpaceTest, RefusesWhatCannotBeSavedAndWarnsOfWhatWillNot) {
  const TemporaryFolder folder;
  const auto free = static_cast<double>(fs::space(folder.path()).available);
  const std::string run_dir = folder / "not/there/yet";
  const auto check = [&](double share, int32_t keep) {
    return CheckSpace(run_dir, Taking(share * free, keep), 0, 100);
  };
  const auto none = check(1.5, 0);
  EXPECT_EQ(ExitCodeOf(none.status()), ExitCode::kIo);
  EXPECT_THAT(Message(none.status()),
              AllOf(HasSubstr(run_dir), HasSubstr(" are free, a checkpoint takes "),
                    testing::Not(HasSubstr("checkpoint.keep"))));
  const auto kept = check(0.4, 2);  // three at a time
  EXPECT_EQ(ExitCodeOf(kept.status()), ExitCode::kIo);
  EXPECT_THAT(Message(kept.status()),
              AllOf(HasSubstr("3 checkpoints"), HasSubstr("lower checkpoint.keep")));
  const auto later = check(0.4, 0);
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_THAT(*later, AllOf(HasSubstr("the 10 checkpoints"), HasSubstr("checkpoint.keep")));
  EXPECT_EQ(check(0.4, 1).value(), "");
  RunConfig best = Taking(0.4 * free, 1);  // it stays beside them
  best.mutable_train()->set_keep_best(true);
  EXPECT_THAT(Message(CheckSpace(run_dir, best, 0, 100).status()),
              AllOf(HasSubstr("3 checkpoints"), HasSubstr("the best")));
  EXPECT_EQ(check(0.05, 0).value(), "");
  EXPECT_FALSE(fs::exists(folder / "not"));
}

TEST(CheckSpaceTest, WhatAKilledJobLeftIsRoom) {
  const TemporaryFolder run;
  fs::create_directories(run / "checkpoints/step_00000010");
  fs::create_directories(run / "checkpoints/step_00000020.tmp");
  const auto free = static_cast<double>(fs::space(run.path()).available);
  const std::string left = run / "checkpoints/step_00000020.tmp/rank_00000.safetensors";
  const RunConfig config = Taking(1.2 * free, 1);
  EXPECT_FALSE(CheckSpace(run.path(), config, 10, 100).ok());
  WriteFile(left, "");
  fs::resize_file(left, static_cast<uintmax_t>(free));  // a hole: takes no room itself
  EXPECT_TRUE(CheckSpace(run.path(), config, 10, 100).ok());
}

}  // namespace
}  // namespace hypermoe
