#include "runtime/hyper_execution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/config_loader.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

RunConfig Config(const std::vector<std::string>& overrides) {
  absl::StatusOr<RunConfig> config = LoadConfig("", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

HyperConfig::Execution Chosen(const std::vector<std::string>& overrides, int world_size = 1,
                              int degree = 1) {
  return ChooseExecution(Config(overrides), world_size, degree).execution;
}

// Generation costs hidden_dim an expert, application 1 a token: few tokens a rank favour the owner.
TEST(ChooseExecutionTest, WeighsGenerationAgainstTokens) {
  EXPECT_EQ(Chosen({}), HyperConfig::source);
  EXPECT_EQ(Chosen({"train.batch_size=8"}, 4, 4), HyperConfig::owner);
  EXPECT_EQ(Chosen({"train.batch_size=800"}, 4, 4), HyperConfig::source);
  // Dropped tokens would travel for the HyperExpert alone.
  EXPECT_EQ(Chosen({"train.batch_size=8", "model.training_capacity.mode=fixed_per_row"}, 4, 4),
            HyperConfig::source);
}

TEST(ChooseExecutionTest, WhatIsGivenStays) {
  const ExecutionChoice choice = ChooseExecution(Config({"hyper.execution=per_token"}), 4, 4);
  EXPECT_EQ(choice.execution, HyperConfig::per_token);
  EXPECT_EQ(choice.reason, "");
}

TEST(ChooseExecutionTest, BilinearWhereEveryTokenHasItsOwn) {
  EXPECT_EQ(Chosen({"hyper.condition=hidden"}), HyperConfig::bilinear);
  EXPECT_EQ(Chosen({"hyper.z=one_minus_prob"}), HyperConfig::bilinear);
  EXPECT_EQ(Chosen({"model.num_experts=64", "model.top_k=8"}), HyperConfig::bilinear);
}

// Top 2 of 8: 28 selections. Top 2 of 64: 2016, against the tokens of a micro-batch.
TEST(ChooseExecutionTest, BilinearWhereSelectionsAreAboutAsManyAsTokens) {
  EXPECT_EQ(Chosen({"model.top_k=2"}), HyperConfig::source);
  const std::vector<std::string> many = {"model.num_experts=64", "model.top_k=2",
                                         "model.sequence_length=128"};
  const auto with_batch = [&](const char* size) {
    std::vector<std::string> overrides = many;
    overrides.push_back(std::string("train.batch_size=") + size);
    return Chosen(overrides);
  };
  EXPECT_EQ(with_batch("4"), HyperConfig::bilinear);
  EXPECT_EQ(with_batch("64"), HyperConfig::source);
}

// 4096 experts' HyperExperts of 12 layers with their gradients are 38 GB on one rank.
TEST(ChooseExecutionTest, OwnerWhereTheSourceHasNoRoom) {
  const std::vector<std::string> large = {"model.num_experts=4096", "model.hidden_size=768",
                                          "model.num_heads=12", "model.num_layers=12",
                                          "train.batch_size=1024"};
  EXPECT_EQ(Chosen(large, 8, 1), HyperConfig::bilinear);
  EXPECT_EQ(Chosen(large, 64, 64), HyperConfig::owner);
}

TEST(ChooseExecutionTest, SaysWhatItWeighed) {
  EXPECT_THAT(ChooseExecution(Config({}), 4, 4).reason,
              AllOf(HasSubstr("chosen by auto"), HasSubstr("source "), HasSubstr("owner "),
                    HasSubstr("bilinear "), HasSubstr("GFLOP")));
  EXPECT_THAT(ChooseExecution(Config({"hyper.condition=hidden"}), 4, 4).reason,
              Not(HasSubstr("source")));
}

}  // namespace
}  // namespace hypermoe
