#include "runtime/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

std::string OfRank(const std::string& text, int rank) { return text + std::to_string(rank); }

TEST(AgreementTest, OkIfAllAre) { EXPECT_TRUE(Agree(*World(), absl::OkStatus()).ok()); }

TEST(AgreementTest, OneFailureIsEveryonesAndNamesItsRank) {
  Communicator& world = *World();
  for (int failing = 0; failing < world.size(); ++failing) {
    const bool fails = world.rank() == failing;
    const absl::Status agreed =
        Agree(world, fails ? IoError("disk full\nat 3 o'clock") : absl::OkStatus());
    EXPECT_EQ(ExitCodeOf(agreed), ExitCode::kIo);
    const std::string prefix = world.size() == 1 ? "" : OfRank("rank ", failing) + ": ";
    EXPECT_EQ(agreed.message(), prefix + "disk full\nat 3 o'clock");
  }
}

TEST(AgreementTest, OfDifferentFailuresTheLowestRanksCounts) {
  Communicator& world = *World();
  const absl::Status mine =
      world.rank() == 0 ? DataError("first") : ConfigError(OfRank("rank's own ", world.rank()));
  const absl::Status agreed = Agree(world, mine);
  EXPECT_EQ(ExitCodeOf(agreed), ExitCode::kBadData);
  EXPECT_EQ(agreed.message(), world.size() == 1 ? "first" : "rank 0: first");
}

TEST(AgreementTest, WhatAllSayIsSaidOnceAndWithoutARank) {
  const absl::Status agreed = Agree(*World(), DataError("no such file"));
  EXPECT_EQ(agreed, DataError("no such file"));
}

TEST(AgreementTest, AnEmptyMessageIsAFailureToo) {
  EXPECT_EQ(ExitCodeOf(Agree(*World(), Stopped(""))), ExitCode::kStopped);
}

}  // namespace
}  // namespace hypermoe
