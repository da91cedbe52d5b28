// The same training step at every arrangement of the ranks that run a test.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/support/tiny_training.h"

namespace hypermoe {

// The expert degrees that the world allows.
std::vector<int> Degrees();

// A number of ranks, at most that of the world, and an expert degree that it allows.
struct Layout {
  int world = 1;
  int expert = 1;
};
// Every one there is.
std::vector<Layout> Layouts();
// "4x2": 4 ranks, expert degree 2.
std::string LayoutName(const Layout& layout);
// The first ranks of the world in `layout`; nothing on a rank beyond. Collective over the world.
std::optional<ProcessMesh> MeshOf(const Layout& layout);

// What one layout computed for step 3 of a randomized model; with optimizer.zero1 the scattered
// gradients are put together again.
struct Outcome {
  double loss = 0, balance_loss = 0, importance_loss = 0, load_loss = 0, router_z_loss = 0,
         gradient_norm = 0;
  NamedTensors gradients;
  at::Tensor tokens_LN, dropped_LN;
  std::vector<double> hyper_shares;
};
Outcome Compute(const RunConfig& config, const ProcessMesh& mesh);
// The same on other data than TinyRows.
Outcome Compute(const RunConfig& config, const ProcessMesh& mesh,
                std::shared_ptr<const TrainingData> data);

// |a - b| against |b|, or against 1e-3 where that is smaller.
double RelativeError(double a, double b);

// Expects every part of the outcomes to agree to `tolerance`; `what` names the layout in failures.
void ExpectEqual(const Outcome& actual, const Outcome& reference, double tolerance,
                 const std::string& what);

}  // namespace hypermoe
