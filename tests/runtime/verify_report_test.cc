// What verify prints: every failure is counted, the worst is named.
#include "runtime/verify_report.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace hypermoe {
namespace {

using testing::HasSubstr;
using testing::Not;

class VerifyReportTest : public testing::Test {
 protected:
  VerifyReportTest() {
    result_.golden = "some/golden.safetensors";
    result_.tolerance = 1e-4;
  }
  void Add(const std::string& name, std::vector<double> actual, std::vector<double> expected) {
    result_.entries.push_back(CompareEntry(name, at::tensor(actual, at::kDouble),
                                           at::tensor(expected, at::kDouble), result_.tolerance));
  }
  void AddIntegers(const std::string& name, std::vector<int64_t> actual,
                   std::vector<int64_t> expected) {
    result_.entries.push_back(CompareEntry(name, at::tensor(actual, at::kLong),
                                           at::tensor(expected, at::kLong), result_.tolerance));
  }
  const VerifyGroup& Group(const std::string& name) {
    groups_ = GroupEntries(result_);
    for (const VerifyGroup& group : groups_) {
      if (group.name == name) return group;
    }
    ADD_FAILURE() << "no group " << name;
    return groups_.at(0);
  }

  VerifyResult result_;
  std::vector<VerifyGroup> groups_;
};

TEST_F(VerifyReportTest, AllWell) {
  Add("logits", {1, 2}, {1, 2.0001});
  AddIntegers("tokens.greedy", {1, 2}, {1, 2});
  EXPECT_TRUE(VerifyStatus(result_).ok());
  EXPECT_THAT(VerifyTable(result_), Not(HasSubstr("FAIL")));
  EXPECT_THAT(VerifyTable(result_), HasSubstr("logits[1]"));
  const auto json = nlohmann::json::parse(VerifyJson(result_));
  EXPECT_TRUE(json["ok"]);
  EXPECT_EQ(json["entries"], 2);
  EXPECT_EQ(json["failed"], 0);
  EXPECT_EQ(json["worst"]["name"], "logits");
  EXPECT_EQ(json["groups"].size(), 2u);
}

TEST_F(VerifyReportTest, EntriesGoToTheirGroups) {
  for (const char* name :
       {"grad.wte.weight", "grad.h.0.mlp.router.w_gate", "grad.h.0.mlp.experts.expert_0.c_fc.bias",
        "grad.h.0.mlp.shared_expert.c_fc.bias", "grad.hypermoe.scale.0", "loss.ce", "mystery"})
    Add(name, {1}, {1});
  AddIntegers("routing.0.kept", {1}, {1});
  EXPECT_EQ(Group("gradients: dense").entries, 2);
  for (const char* name : {"gradients: router", "gradients: experts", "gradients: hypernetwork",
                           "losses", "routing", "other"})
    EXPECT_EQ(Group(name).entries, 1) << name;
}

TEST_F(VerifyReportTest, LargestAbsoluteAndRelativeMayLieApart) {
  Add("grad.a", {1000, 0}, {1000.01, 0});
  Add("grad.b", {0, 0.5}, {0, 0.50004});
  const VerifyGroup& group = Group("gradients: dense");
  EXPECT_EQ(group.absolute->name, "grad.a");
  EXPECT_EQ(group.relative->name, "grad.b");
  EXPECT_THAT(VerifyTable(result_), HasSubstr("grad.a[0]"));
  EXPECT_THAT(VerifyTable(result_), HasSubstr("grad.b[1]"));
}

TEST_F(VerifyReportTest, FailuresAreCountedAndTheWorstIsNamed) {
  Add("grad.a", {1, 2}, {1, 2.1});
  Add("grad.b", {1, 2}, {3, 2});
  Add("grad.c", {1}, {1});
  EXPECT_EQ(Group("gradients: dense").failed, 2);
  EXPECT_EQ(VerifyStatus(result_).code(), DataError("").code());
  const std::string message(VerifyStatus(result_).message());
  EXPECT_THAT(message, HasSubstr("2 of 3 entries of some/golden.safetensors"));
  EXPECT_THAT(message, HasSubstr("grad.b[0] is 1, expected 3"));
  EXPECT_THAT(VerifyTable(result_), HasSubstr("FAIL grad.a[1]"));
  EXPECT_FALSE(nlohmann::json::parse(VerifyJson(result_))["ok"]);
}

TEST_F(VerifyReportTest, WhatCannotBeComparedIsWorst) {
  Add("grad.a", {1}, {9});
  Add("grad.b", {1, 1}, {1});
  EXPECT_THAT(std::string(VerifyStatus(result_).message()), HasSubstr("the worst: grad.b"));
  EXPECT_THAT(VerifyJson(result_), HasSubstr("problem"));
}

TEST_F(VerifyReportTest, NoNumberIsNullInJson) {
  Add("logits", {std::numeric_limits<double>::quiet_NaN()}, {1});
  EXPECT_FALSE(VerifyStatus(result_).ok());
  EXPECT_TRUE(nlohmann::json::parse(VerifyJson(result_))["worst"]["relative"].is_null());
}

TEST_F(VerifyReportTest, ManyFailuresAreCutShort) {
  for (int i = 0; i < 25; ++i) Add("grad." + std::to_string(i), {1}, {2});
  EXPECT_THAT(VerifyTable(result_), HasSubstr("and 15 more"));
}

}  // namespace
}  // namespace hypermoe
