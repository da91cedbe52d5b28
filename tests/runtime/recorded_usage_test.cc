#include "runtime/recorded_usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kStep1[] =
    R"({"kind":"train","step":1,"expert_load":[[4,0],[2,2]],"dropped_tokens":[1,0],)"
    R"("expert_load_max_over_mean":2.0})"
    "\n";
constexpr char kStep2[] =
    R"({"kind":"train","step":2,"expert_load":[[3,1],[0,4]],"dropped_tokens":[0,1],)"
    R"("expert_load_max_over_mean":2.0,"hyper_share":0.25,"hyper_shares":[0.2,0.3]})"
    "\n";
constexpr char kValidation[] = R"({"kind":"validation","step":2,"loss":1.5})"
                               "\n";

class RecordedUsageTest : public testing::Test {
 protected:
  absl::StatusOr<std::optional<RecordedUsage>> Read(const std::string& text,
                                                    int64_t last_step = 100) {
    return ReadRecordedUsage(folder_.Write("metrics.jsonl", text), last_step);
  }
  TemporaryFolder folder_;
};

TEST_F(RecordedUsageTest, SumsTheLastStepsAndKeepsTheCourse) {
  const auto usage = Read(std::string(kStep1) + kStep2 + kValidation);
  ASSERT_TRUE(usage.ok()) << usage.status();
  ASSERT_TRUE(usage->has_value());
  EXPECT_THAT((*usage)->tokens_LN.values, ElementsAre(7, 1, 2, 6));
  EXPECT_THAT((*usage)->dropped_L, ElementsAre(1, 1));
  EXPECT_THAT((*usage)->hyper_shares_L, ElementsAre(0.2, 0.3));
  EXPECT_EQ((*usage)->last_steps, 2);
  ASSERT_EQ((*usage)->steps.size(), 2u);
  EXPECT_EQ((*usage)->steps[0].idle_experts, 1);
  EXPECT_EQ((*usage)->steps[0].dropped_share, 0.125);
  EXPECT_TRUE(std::isnan((*usage)->steps[0].hyper_share));
  EXPECT_EQ((*usage)->steps[1].hyper_share, 0.25);
}

TEST_F(RecordedUsageTest, AWindowOfAHundredSteps) {
  std::string text;
  for (int step = 1; step <= 150; ++step) {
    std::string line = kStep1;
    line.replace(line.find("\"step\":1"), 8, "\"step\":" + std::to_string(step));
    text += line;
  }
  const auto usage = Read(text, 140);
  ASSERT_TRUE(usage.ok()) << usage.status();
  EXPECT_EQ((*usage)->steps.size(), 140u);  // what came after the checkpoint does not count
  EXPECT_EQ((*usage)->last_steps, 100);
  EXPECT_EQ((*usage)->tokens_LN(0, 0), 400);
}

TEST_F(RecordedUsageTest, NothingWhereNothingIsRecorded) {
  EXPECT_FALSE(ReadRecordedUsage(folder_ / "no_such", 1)->has_value());
  EXPECT_FALSE(Read("")->has_value());
  EXPECT_FALSE(Read(R"({"kind":"train","step":1,"expert_load":[],"dropped_tokens":[]})"
                    "\n")
                   ->has_value());
}

TEST_F(RecordedUsageTest, ALineThatIsNotARunsIsNamed) {
  for (const char* line :
       {"no json\n", "[]\n", "{\"kind\":\"train\",\"step\":2}\n",
        "{\"kind\":\"train\",\"step\":2,\"expert_load\":[[1]],\"dropped_tokens\":[0]}\n",
        "{\"kind\":\"train\",\"step\":2,\"expert_load\":[[1,2],[3,4]],\"dropped_tokens\":[0]}\n",
        "{\"kind\":\"train\",\"step\":2,\"expert_load\":7,\"dropped_tokens\":[0]}\n"}) {
    const auto usage = Read(std::string(kStep1) + line);
    EXPECT_EQ(ExitCodeOf(usage.status()), ExitCode::kBadData) << line;
    EXPECT_THAT(std::string(usage.status().message()), HasSubstr("metrics.jsonl, line 2"));
  }
  // But for one that is being written.
  EXPECT_TRUE(Read(std::string(kStep1) + "{\"kind\":\"tr").ok());
}

}  // namespace
}  // namespace hypermoe
