#include "parallel/process_mesh.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

// Whether the ranges of all ranks follow on each other from 0 to `total`, sizes never grow and
// differ by at most one.
template <typename Range>
void ExpectFairPartition(int64_t total, int parts, Range (*range_of)(int64_t, int, int)) {
  int64_t next = 0;
  for (int rank = 0; rank < parts; ++rank) {
    const Range range = range_of(total, parts, rank);
    EXPECT_EQ(range.begin, next);
    const int64_t larger = rank < total % parts ? 1 : 0;
    EXPECT_EQ(range.size(), total / parts + larger) << "rank " << rank << " of " << parts;
    next = range.end;
  }
  EXPECT_EQ(next, total);
}

TEST(ExpertsOfRankTest, EveryExpertHasOneRank) {
  for (int64_t num_experts : {1, 2, 5, 6, 8, 64}) {
    for (int degree : {1, 2, 3, 4, 7}) {
      ExpectFairPartition<ExpertRange>(num_experts, degree, ExpertsOfRank);
    }
  }
}

TEST(ExpertsOfRankTest, FirstRanksHoldOneMore) {
  EXPECT_EQ(ExpertsOfRank(6, 4, 1).begin, 2);
  EXPECT_EQ(ExpertsOfRank(6, 4, 1).end, 4);
  EXPECT_EQ(ExpertsOfRank(6, 4, 3).size(), 1);
  EXPECT_EQ(ExpertsOfRank(2, 4, 3).size(), 0);
}

TEST(RowsOfRankTest, EveryRowHasOneRank) {
  for (int64_t total : {0, 1, 3, 4, 11, 1000}) {
    for (int size : {1, 2, 4, 5}) ExpectFairPartition<RowRange>(total, size, RowsOfRank);
  }
}

TEST(DefaultExpertDegreeTest, IsTheLargestDivisorWithinTheExperts) {
  EXPECT_EQ(DefaultExpertDegree(1, 8), 1);
  EXPECT_EQ(DefaultExpertDegree(8, 8), 8);
  EXPECT_EQ(DefaultExpertDegree(8, 6), 4);
  EXPECT_EQ(DefaultExpertDegree(6, 4), 3);
  EXPECT_EQ(DefaultExpertDegree(7, 6), 1);
  EXPECT_EQ(DefaultExpertDegree(4, 0), 1);  // a dense model
}

TEST(ProcessMeshTest, OneRankIsItsOwnGroups) {
  const ProcessMesh mesh = ProcessMesh::Create(NewSelfCommunicator("world"), 1);
  EXPECT_EQ(mesh.world->size(), 1);
  EXPECT_EQ(mesh.expert->name(), "expert");
  EXPECT_EQ(mesh.expert_data->name(), "expert_data");
}

TEST(ProcessMeshTest, DegreeThatDoesNotDivideTheWorldIsExplained) {
  for (int degree : {3, 0, -1}) {
    try {
      ProcessMesh::Create(NewSelfCommunicator("world"), degree);
      ADD_FAILURE() << degree << " was accepted";
    } catch (const c10::Error& error) {
      EXPECT_EQ(std::string(error.what_without_backtrace()),
                "mesh.expert_parallel (" + std::to_string(degree) +
                    ") must divide the number of ranks (1): set it to 1");
    }
  }
}

}  // namespace
}  // namespace hypermoe
