#include "tests/support/layouts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel/gradient_norm.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {

Outcome Compute(const RunConfig& config, const ProcessMesh& mesh) {
  return Compute(config, mesh, TinyRows(config));
}

Outcome Compute(const RunConfig& config, const ProcessMesh& mesh,
                std::shared_ptr<const TrainingData> data) {
  Trainer trainer(config, mesh, std::move(data));
  Randomize(trainer);
  const StepResult result = trainer.ComputeGradients(3);
  Outcome outcome;
  outcome.loss = result.loss;
  outcome.balance_loss = result.balance_loss;
  outcome.importance_loss = result.importance_loss;
  outcome.load_loss = result.load_loss;
  outcome.router_z_loss = result.router_z_loss;
  outcome.gradient_norm =
      GlobalGradientNorm(trainer.buffers(), trainer.buckets(), *mesh.world).item<double>();
  if (config.optimizer().zero1()) {
    for (const GradientBucket& bucket : trainer.buckets())
      bucket.group->AllGatherParts(bucket.In(trainer.buffers()[bucket.buffer].gradients()));
  }
  outcome.gradients = Gradients(trainer);
  outcome.tokens_LN = result.tokens_LN;
  outcome.dropped_LN = result.dropped_LN;
  outcome.hyper_shares = result.hyper_shares;
  return outcome;
}

std::vector<int> Degrees() {
  std::vector<int> degrees;
  for (int degree = 1; degree <= World()->size(); ++degree) {
    if (World()->size() % degree == 0) degrees.push_back(degree);
  }
  return degrees;
}

std::vector<Layout> Layouts() {
  std::vector<Layout> layouts;
  for (int world = 1; world <= World()->size(); ++world) {
    for (int expert = 1; expert <= world; ++expert) {
      if (world % expert == 0) layouts.push_back({world, expert});
    }
  }
  return layouts;
}

std::string LayoutName(const Layout& layout) {
  return std::to_string(layout.world) + "x" + std::to_string(layout.expert);
}

std::optional<ProcessMesh> MeshOf(const Layout& layout) {
  const bool in = World()->rank() < layout.world;
  std::shared_ptr<Communicator> part = World()->Split("part", in ? 0 : 1, World()->rank());
  if (!in) return std::nullopt;
  return ProcessMesh::Create(part, layout.expert);
}

double RelativeError(double a, double b) { return std::abs(a - b) / std::max(std::abs(b), 1e-3); }

void ExpectEqual(const Outcome& actual, const Outcome& reference, double tolerance,
                 const std::string& what) {
  EXPECT_LE(RelativeError(actual.loss, reference.loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.balance_loss, reference.balance_loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.importance_loss, reference.importance_loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.load_loss, reference.load_loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.router_z_loss, reference.router_z_loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.gradient_norm, reference.gradient_norm), tolerance) << what;
  EXPECT_LE(LargestError(actual.gradients, reference.gradients), tolerance) << what;
  EXPECT_TRUE(actual.tokens_LN.equal(reference.tokens_LN)) << what;
  EXPECT_TRUE(actual.dropped_LN.equal(reference.dropped_LN)) << what;
  // With several experts a token execution owner does not know them.
  if (actual.hyper_shares.empty()) return;
  ASSERT_EQ(actual.hyper_shares.size(), reference.hyper_shares.size()) << what;
  for (size_t i = 0; i < actual.hyper_shares.size(); ++i) {
    EXPECT_LE(RelativeError(actual.hyper_shares[i], reference.hyper_shares[i]), tolerance) << what;
  }
}

}  // namespace hypermoe
