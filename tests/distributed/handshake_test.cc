#include "runtime/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Facts of which rank `odd` has its own third one.
std::vector<SharedFact> Facts(int odd, const std::string& own) {
  const bool mine = World()->rank() == odd;
  return {{"the program", "", "install"},
          {"threads", "4", "set runtime.threads"},
          {"the configuration", mine ? own : "a: 1\nb: 2\nc: 3\n", "give all the same file"}};
}

TEST(HandshakeTest, OkIfAllAreAlike) {
  EXPECT_TRUE(CheckAlike(*World(), Facts(-1, "")).ok());
  EXPECT_TRUE(CheckAlike(*World(), {}).ok());
}

TEST(HandshakeTest, NamesTheRankTheFactAndTheLineOnEveryRank) {
  for (int odd = 1; odd < World()->size(); ++odd) {
    const absl::Status status = CheckAlike(*World(), Facts(odd, "a: 1\nb: 7\nc: 3\n"));
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
    EXPECT_EQ(status.message(), "rank " + std::to_string(odd) +
                                    " differs from rank 0 in the configuration: it has 'b: 7', "
                                    "not 'b: 2' as on rank 0; give all the same file");
  }
}

TEST(HandshakeTest, WhatRankZeroAloneHasIsADifferenceOfRankOne) {
  if (World()->size() == 1) return;
  const absl::Status status = CheckAlike(*World(), Facts(0, "a: 1"));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("rank 1 "), HasSubstr("'b: 2', not nothing as on rank 0")));
}

TEST(HandshakeTest, TheFirstFactAndTheLowestRankCount) {
  const int rank = World()->rank();
  const absl::Status status =
      CheckAlike(*World(), {{"threads", rank >= 1 ? "2" : "4", "set runtime.threads"},
                            {"the data", std::to_string(rank), "copy"}});
  EXPECT_EQ(status.ok(), World()->size() == 1);
  if (status.ok()) return;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("rank 1 "), HasSubstr("threads"), HasSubstr("'2', not '4'")));
}

}  // namespace
}  // namespace hypermoe
