#include "runtime/window_evaluation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <array>

#include "model/config_values.h"
#include "model/expert_capacity.h"
#include "model/router_losses.h"
#include "parallel/progress_marks.h"
#include "runtime/agreement.h"

namespace hypermoe {
namespace {

// How rows are worked through: `chosen` ones, `stride` apart, over all ranks together `rows` at a
// time, which are given to the ranks in units of `unit` (UnitsOfRank).
struct Passes {
  int64_t stride = 1;
  int64_t chosen = 0;
  int64_t rows = 1;
  int64_t unit = 1;
  int64_t count() const { return (chosen + rows - 1) / rows; }
};

Passes PassesOf(const ValidationData& data, int64_t max_rows, const RunConfig& config) {
  Passes passes;
  if (max_rows > 0) passes.stride = std::max<int64_t>(1, (data.size() + max_rows - 1) / max_rows);
  passes.chosen = (data.size() + passes.stride - 1) / passes.stride;
  passes.rows = std::max(1, config.train().batch_size() / config.train().micro_batches());
  passes.unit = CapacityGroupRows(config.model().evaluation_capacity());
  if (passes.unit > 1) passes.rows = (passes.rows + passes.unit - 1) / passes.unit * passes.unit;
  return passes;
}

}  // namespace

int64_t ForEachPass(const ValidationData& data, int64_t max_rows, const RunConfig& config,
                    const Communicator& world, const std::function<bool(const Batch& batch)>& run) {
  const at::NoGradGuard no_grad;
  const Passes passes = PassesOf(data, max_rows, config);
  for (int64_t begin = 0; begin < passes.chosen; begin += passes.rows) {
    const RowRange rows = {begin, std::min(begin + passes.rows, passes.chosen)};
    const RowRange mine = UnitsOfRank(rows.size(), passes.unit, world.size(), world.rank());
    if (!run(data.Rows(rows, {begin + mine.begin, begin + mine.end}, passes.stride))) return begin;
  }
  return passes.chosen;
}

std::optional<EvaluatedLosses> EvaluateWindows(LanguageModel& model, const ValidationData& data,
                                               int64_t max_rows, const RunConfig& config,
                                               Communicator& world,
                                               const std::function<bool()>& stop) {
  const bool with_router = !config.data().task().empty() && !HasEncoder(config.model());
  const Passes passes = PassesOf(data, max_rows, config);
  const BatchScale scale = {passes.count(), passes.chosen};
  std::array<double, 3> sums = {0, 0, 0};  // of losses, of labels counted, of the router's losses
  bool stopped = false;
  ForEachPass(data, max_rows, config, world, [&](const Batch& rows) {
    stopped = stop && AnyRank(world, stop());
    if (stopped) return false;
    const Batch batch = rows.To(model.device());
    const ModelOutput output = model.Forward(batch, ForwardMode{});
    MarkProgress();
    sums[0] += CrossEntropy(output.logits_TV, batch.labels_BS, 1.0).item<double>();
    sums[1] += static_cast<double>(batch.labels_BS.ne(kIgnoredLabel).sum().item<int64_t>());
    if (with_router) {
      sums[2] +=
          ComputeRouterLosses(output.routing, config.model(), scale, world).Total().item<double>();
    }
    return true;
  });
  if (stopped) return std::nullopt;
  world.AllReduceSum(at::from_blob(sums.data(), {3}, at::kDouble));
  return EvaluatedLosses{sums[0] / sums[1], sums[2]};
}

}  // namespace hypermoe
