#include "parallel/progress_marks.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace hypermoe {
namespace {

TEST(ProgressMarksTest, StepsPhasesAndPlainMarksAreProgress) {
  const int64_t before = ReadProgress().marks;
  MarkStep(7);
  EXPECT_EQ(ReadProgress().marks, before + 1);
  MarkPhase("forward");
  EXPECT_EQ(ReadProgress().marks, before + 2);
  MarkProgress();
  const Progress progress = ReadProgress();
  EXPECT_EQ(progress.marks, before + 3);
  EXPECT_EQ(progress.step, 7);
  EXPECT_STREQ(progress.phase, "forward");
}

TEST(ProgressMarksTest, ACollectiveIsNumberedAndItsEndIsProgress) {
  const int64_t number = ReadProgress().collectives + 1;
  int64_t inside_marks = 0;
  {
    const CollectiveMark mark("all_to_all", "expert_data");
    EXPECT_EQ(mark.number(), number);
    const Progress progress = ReadProgress();
    EXPECT_EQ(progress.collectives, number);
    EXPECT_EQ(progress.collective, number);
    EXPECT_STREQ(progress.kind, "all_to_all");
    EXPECT_STREQ(progress.group.data(), "expert_data");
    EXPECT_TRUE(progress.inside);
    inside_marks = progress.marks;
  }
  EXPECT_FALSE(ReadProgress().inside);
  EXPECT_EQ(ReadProgress().marks, inside_marks + 1);
}

TEST(ProgressMarksTest, ALongNameIsCut) {
  const CollectiveMark mark("barrier", "a_group_with_a_long_name");
  EXPECT_STREQ(ReadProgress().group.data(), "a_group_with_a_");
}

// A rank that tests for ever, or waits for one that never comes, makes no progress.
TEST(ProgressMarksTest, WaitingForWhatWasStartedIsNoProgress) {
  const Progress before = ReadProgress();
  for (int i = 0; i < 3; ++i) {
    const CollectiveMark mark("all_reduce", "world", 4);
    EXPECT_EQ(ReadProgress().collective, 4);
    EXPECT_TRUE(ReadProgress().inside);
  }
  EXPECT_EQ(ReadProgress().marks, before.marks);
  EXPECT_EQ(ReadProgress().collectives, before.collectives);
}

TEST(ProgressMarksTest, ANestedCollectiveLeavesTheOuterOneOpen) {
  const CollectiveMark outer("all_reduce", "world");
  { const CollectiveMark inner("all_reduce", "world"); }
  EXPECT_TRUE(ReadProgress().inside);
}

TEST(ProgressMarksTest, CommunicatorsMarkTheirCollectives) {
  const auto self = NewSelfCommunicator("alone");
  const Progress before = ReadProgress();
  self->Barrier();
  EXPECT_EQ(ReadProgress().collectives, before.collectives + 1);
  EXPECT_STREQ(ReadProgress().kind, "barrier");
  EXPECT_STREQ(ReadProgress().group.data(), "alone");

  const auto reduction = self->StartAllReduceSum(at::ones({3}));
  const auto second = self->StartAllReduceSum(at::ones({3}));
  EXPECT_EQ(ReadProgress().collective, before.collectives + 3);
  const int64_t marks = ReadProgress().marks;
  reduction->Wait();
  EXPECT_EQ(ReadProgress().collective, before.collectives + 2) << "the number of its start";
  EXPECT_EQ(ReadProgress().collectives, before.collectives + 3);
  EXPECT_GT(ReadProgress().marks, marks) << "it is done";
  second->Wait();
  EXPECT_FALSE(ReadProgress().inside);
}

std::vector<std::string> seen;

TEST(ProgressMarksTest, TheHookSeesPhasesAndCollectivesAsTheyBegin) {
  SetProgressHook([](const char* what) { seen.emplace_back(what); });
  MarkPhase("save");
  NewSelfCommunicator("alone")->Barrier();
  SetProgressHook(nullptr);
  MarkPhase("load");
  EXPECT_EQ(seen, (std::vector<std::string>{"save", "barrier"}));
}

}  // namespace
}  // namespace hypermoe
