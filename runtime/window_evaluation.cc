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

// How rows are worked through: over all ranks together `rows` at a time, which are given to the
// ranks in units of `unit` (UnitsOfRank).
struct Pass {
  int64_t rows = 1;
  int64_t unit = 1;
};

Pass PassOf(const RunConfig& config) {
  const int64_t rows = std::max(1, config.train().batch_size() / config.train().micro_batches());
  const int64_t unit = CapacityGroupRows(config.model().evaluation_capacity());
  return {unit > 1 ? (rows + unit - 1) / unit * unit : rows, unit};
}

}  // namespace

std::optional<EvaluatedLosses> EvaluateWindows(LanguageModel& model, const ValidationData& data,
                                               int64_t max_rows, const RunConfig& config,
                                               Communicator& world,
                                               const std::function<bool()>& stop) {
  const at::NoGradGuard no_grad;
  const bool with_router = !config.data().task().empty() && !HasEncoder(config.model());
  const Pass pass = PassOf(config);
  const int64_t stride =
      max_rows <= 0 ? 1 : std::max<int64_t>(1, (data.size() + max_rows - 1) / max_rows);
  const int64_t chosen = (data.size() + stride - 1) / stride;
  const BatchScale scale = {(chosen + pass.rows - 1) / pass.rows, chosen};
  std::array<double, 3> sums = {0, 0, 0};  // of losses, of labels counted, of the router's losses
  for (int64_t begin = 0; begin < chosen; begin += pass.rows) {
    if (stop && AnyRank(world, stop())) return std::nullopt;
    const RowRange rows = {begin, std::min(begin + pass.rows, chosen)};
    const RowRange mine = UnitsOfRank(rows.size(), pass.unit, world.size(), world.rank());
    const Batch batch =
        data.Rows(rows, {begin + mine.begin, begin + mine.end}, stride).To(model.device());
    const ModelOutput output = model.Forward(batch, ForwardMode{});
    MarkProgress();
    sums[0] += CrossEntropy(output.logits_TV, batch.labels_BS, 1.0).item<double>();
    sums[1] += static_cast<double>(batch.labels_BS.ne(kIgnoredLabel).sum().item<int64_t>());
    if (!with_router) continue;
    sums[2] +=
        ComputeRouterLosses(output.routing, config.model(), scale, world).Total().item<double>();
  }
  world.AllReduceSum(at::from_blob(sums.data(), {3}, at::kDouble));
  return EvaluatedLosses{sums[0] / sums[1], sums[2]};
}

}  // namespace hypermoe
