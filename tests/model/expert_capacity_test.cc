#include "model/expert_capacity.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

CapacityConfig PerRow(int tokens) {
  CapacityConfig config;
  config.set_mode(CapacityConfig::fixed_per_row);
  config.set_tokens_per_row(tokens);
  return config;
}

CapacityConfig PerGroup(double factor, int rows) {
  CapacityConfig config;
  config.set_mode(CapacityConfig::factor_per_group);
  config.set_factor(factor);
  config.set_group_rows(rows);
  return config;
}

std::vector<bool> Taken(const std::vector<int64_t>& ids, int64_t rows, int64_t num_experts,
                        const CapacityConfig& config, int64_t top_k = 1) {
  const at::Tensor ids_TK = at::tensor(ids, at::kLong).view({-1, top_k});
  const at::Tensor taken = ChoicesTaken(ids_TK, rows, num_experts, config);
  EXPECT_TRUE(taken.equal(ChoicesTakenOnDevice(ids_TK, rows, num_experts, config)));
  const bool* data = taken.const_data_ptr<bool>();
  return std::vector<bool>(data, data + taken.numel());
}

TEST(ChoicesTakenTest, WithoutLimitIsUndefined) {
  EXPECT_FALSE(ChoicesTaken(at::tensor({0L, 0L}).view({2, 1}), 1, 2, {}).defined());
}

TEST(ChoicesTakenTest, FirstTokensOfEachRow) {
  EXPECT_EQ(Taken({0, 1, 0, 0, /**/ 0, 0, 0, 1}, 2, 2, PerRow(2)),
            (std::vector<bool>{true, true, true, false, /**/ true, true, false, true}));
}

// The case of the Switch model: expert_capacity 64, a row of 65 tokens that all choose one expert.
TEST(ChoicesTakenTest, TheSixtyFifthToken) {
  std::vector<bool> expected(65, true);
  expected.back() = false;
  EXPECT_EQ(Taken(std::vector<int64_t>(65, 3), 1, 8, PerRow(64)), expected);
}

TEST(ChoicesTakenTest, GroupsGoAcrossRowsAndTheLastMayBeShorter) {
  // Groups of two rows of six: floor(1.0 * 12 / 2) = 6 tokens an expert; the last row alone: the
  // smallest limit, 4, instead of 3.
  std::vector<bool> expected(18, true);
  for (int64_t t = 6; t < 12; ++t) expected[t] = false;
  for (int64_t t = 16; t < 18; ++t) expected[t] = false;
  EXPECT_EQ(Taken(std::vector<int64_t>(18, 1), 3, 2, PerGroup(1.0, 2)), expected);
}

TEST(ChoicesTakenTest, GroupOfAllRows) {
  std::vector<bool> expected(20, true);
  for (int64_t t = 12; t < 20; ++t) expected[t] = false;  // floor(1.25 * 20 / 2) = 12
  EXPECT_EQ(Taken(std::vector<int64_t>(20, 0), 5, 2, PerGroup(1.25, 0)), expected);
}

// One row of three tokens, two choices each: the second choice of the first token queues behind the
// first choices of the others.
TEST(ChoicesTakenTest, FirstChoicesGoBeforeSecondOnes) {
  EXPECT_EQ(Taken({0, 1, /**/ 1, 0, /**/ 1, 2}, 1, 3, PerRow(2), 2),
            (std::vector<bool>{true, false, /**/ true, true, /**/ true, true}));
}

// floor(factor * K * T / N).
TEST(ChoicesTakenTest, TheShareCountsChoices) {
  const std::vector<bool> taken = Taken(std::vector<int64_t>(20, 0), 1, 2, PerGroup(1.6, 0), 2);
  EXPECT_EQ(std::count(taken.begin(), taken.end(), true), 16);  // floor(1.6 * 2 * 10 / 2)
}

// Both ways, for whatever is chosen: on the CPU, and on a GPU where there is one.
TEST(ChoicesTakenTest, LoopAndDeviceAgree) {
  constexpr int64_t kExperts = 5;
  for (const CapacityConfig& config :
       {PerRow(1), PerRow(3), PerGroup(1.0, 0), PerGroup(0.5, 2), PerGroup(1.3, 4)}) {
    for (const int64_t top_k : {1, 2, 4}) {
      for (const int64_t rows : {1, 3, 8}) {
        const std::string what = "top " + std::to_string(top_k) + ", " + std::to_string(rows);
        const at::Tensor ids_TK = Random({rows * 12, top_k}, what, at::kDouble)
                                      .mul(100)
                                      .floor()
                                      .remainder(kExperts)
                                      .to(at::kLong);
        const at::Tensor expected = ChoicesTaken(ids_TK, rows, kExperts, config);
        EXPECT_TRUE(expected.any().item<bool>());
        for (const at::Device device : DevicesHere()) {
          EXPECT_TRUE(
              ChoicesTakenOnDevice(ids_TK.to(device), rows, kExperts, config).cpu().equal(expected))
              << what << " rows, " << device;
        }
      }
    }
  }
}

TEST(ChoicesTakenTest, NoRows) {
  for (const CapacityConfig& config : {PerRow(2), PerGroup(1.0, 0), PerGroup(1.0, 3)}) {
    const at::Tensor none = at::empty({0, 2}, at::kLong);
    EXPECT_EQ(ChoicesTaken(none, 0, 4, config).numel(), 0);
    EXPECT_EQ(ChoicesTakenOnDevice(none, 0, 4, config).numel(), 0);
  }
}

TEST(ChoicesTakenTest, RefusesTokensThatAreNoRows) {
  EXPECT_THROW(ChoicesTaken(at::tensor({0L, 0L, 0L}).view({3, 1}), 2, 2, PerRow(1)), c10::Error);
}

}  // namespace
}  // namespace hypermoe
