#include "parallel/expert_gather.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "parallel/process_mesh.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

constexpr int64_t kLayers = 2, kWidth = 3;

// Different in every element, whole numbers.
at::Tensor AllValues(int64_t num_experts) {
  return at::arange(num_experts * kLayers * kWidth, at::kDouble).view({-1, kLayers, kWidth});
}

// Fewer experts than ranks, equal parts and unequal ones.
TEST(GatherExpertsTest, EveryRankHasAllAndTheOwnerTheSumOfTheirGradients) {
  for (const int64_t num_experts : {1, 2, 3, 4, 7, 8}) {
    for (const int degree : Degrees()) {
      const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
      const ExpertRange own = ExpertsOfRank(num_experts, degree, mesh.expert->rank());
      const at::Tensor values = AllValues(num_experts);
      const at::Tensor mine = values.narrow(0, own.begin, own.size()).clone();
      mine.set_requires_grad(true);
      const at::Tensor all = GatherExperts(mine, mesh.expert, num_experts);
      EXPECT_TRUE(at::equal(all, values)) << num_experts << " experts, degree " << degree;
      // Rank r gives r + 1 times the values back.
      (all * values * (mesh.expert->rank() + 1)).sum().backward();
      const double shares = degree * (degree + 1) / 2.0;
      EXPECT_TRUE(at::equal(mine.grad(), shares * mine.detach()))
          << num_experts << " experts, degree " << degree;
      const int64_t calls = degree > 1 ? 1 : 0;
      EXPECT_EQ(mesh.expert->traffic(Collective::kAllGather).calls, calls);
      EXPECT_EQ(mesh.expert->traffic(Collective::kReduceScatter).calls, calls);
    }
  }
}

TEST(GatherExpertsTest, ATensorOfOtherExpertsIsRefused) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  EXPECT_THROW(GatherExperts(AllValues(9), mesh.expert, 8), c10::Error);
  EXPECT_FALSE(GatherExperts(AllValues(World()->size()).narrow(0, World()->rank(), 1), mesh.expert,
                             World()->size())
                   .requires_grad());
}

}  // namespace
}  // namespace hypermoe
