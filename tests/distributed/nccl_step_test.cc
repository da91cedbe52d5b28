// A training step over NCCL, with the stand-in for libnccl: the numbers that it has over MPI, and
// the same calls in the same order on all ranks, also where one has no tokens.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/layouts.h"
#include "tests/support/nccl_test.h"

namespace hypermoe {
namespace {

TEST(NcclStepTest, RanksAgreeOnCallsAndNumbersAreThoseOverMpi) {
  // As many experts on every rank, so that the reductions of an expert group are alike.
  RunConfig config = TinyConfig(ModelConfig::hyper, 8, RuntimeConfig::float64);
  config.mutable_hyper()->set_execution(HyperConfig::source);
  for (const int rows : {12, 3}) {
    config.mutable_train()->set_batch_size(rows);
    for (const int degree : Degrees()) {
      const std::string what = std::to_string(rows) + " rows, degree " + std::to_string(degree);
      const Outcome expected = Compute(config, ProcessMesh::Create(World(), degree));
      const ProcessMesh mesh = ProcessMesh::Create(NcclWorld(), degree);
      Outcome actual;
      std::vector<NcclCall> calls = CallsOf([&] { actual = Compute(config, mesh); });
      ExpectEqual(actual, expected, 1e-12, what);
      // Not all have something to copy to themselves.
      std::erase_if(calls, [](const NcclCall& call) { return call.name == "copy"; });
      EXPECT_GT(calls.size(), 20) << what;
      // Messages have their places in the expert group.
      EXPECT_EQ(Difference(OnAllRanks(*mesh.expert, calls)), "") << what;
      // What all ranks take part in.
      std::erase_if(calls, [](const NcclCall& call) { return call.group != "world"; });
      EXPECT_GT(calls.size(), 1) << what;
      EXPECT_EQ(Difference(OnAllRanks(*World(), calls)), "") << what;
    }
  }
}

}  // namespace
}  // namespace hypermoe
