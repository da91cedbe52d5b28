#include "launch/distributed_init.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

TEST(DistributedInitTest, TheLaunchersRankIsTheWorldsRank) {
  EXPECT_EQ(LaunchRank(), World()->rank());
  const char* launched = std::getenv("OMPI_COMM_WORLD_SIZE");
  EXPECT_EQ(World()->size(), launched == nullptr ? 1 : std::atoi(launched));
  EXPECT_TRUE(StartedByLauncher() || World()->size() == 1);
}

TEST(FairShareOfCoresTest, CoresAreSharedAmongTheRanksThatMayUseThem) {
  EXPECT_EQ(FairShareOfCores({{0, 1, 2, 3}}, 0), 4);
  EXPECT_EQ(FairShareOfCores({{0, 1}, {0, 1}}, 1), 1);
  EXPECT_EQ(FairShareOfCores({{0, 1}, {0, 1}, {0, 1}, {0, 1}}, 2), 1);  // never less than one
  EXPECT_EQ(FairShareOfCores({{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}}, 0), 2);
  EXPECT_EQ(FairShareOfCores({{0, 1}, {2, 3, 4}}, 1), 3);                // bound apart
  EXPECT_EQ(FairShareOfCores({{0, 1, 2}, {0, 1, 2}, {0, 1, 2}}, 0), 1);  // three thirds
  EXPECT_EQ(FairShareOfCores({{0, 1, 2, 3}, {3}}, 0), 3);                // 3.5
}

TEST(AvailableThreadsTest, TheRanksTogetherUseNoMoreThanTheCores) {
  int total = 0;
  for (const std::string& threads : World()->AllGatherText(std::to_string(AvailableThreads()))) {
    EXPECT_GE(std::stoi(threads), 1);
    total += std::stoi(threads);
  }
  const int cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_LE(total, std::max(cores, World()->size()));
}

}  // namespace
}  // namespace hypermoe
