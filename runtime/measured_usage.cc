#include "runtime/measured_usage.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <utility>

#include "runtime/window_evaluation.h"

namespace hypermoe {
namespace {

// Sums over passes: counts in float64, which holds them exactly, on the model's device.
class UsageCounter {
 public:
  UsageCounter(const LanguageModel& model, const ModelConfig& config)
      : num_experts_(config.num_experts()), top_k_(config.top_k()) {
    const auto layers = static_cast<int64_t>(model.sparse_layers().size());
    const auto options = at::TensorOptions(at::kDouble).device(model.device());
    tokens_LN_ = at::zeros({layers, num_experts_}, options);
    dropped_LN_ = at::zeros({layers, num_experts_}, options);
    squares_L2_ = at::zeros({layers, 2}, options);
    if (top_k_ > 1) together_LNN_ = at::zeros({layers, num_experts_, num_experts_}, options);
  }

  void Add(const std::vector<RoutingResult>& routing) {
    for (size_t i = 0; i < routing.size(); ++i) Add(routing[i], static_cast<int64_t>(i));
  }

  MeasuredUsage Sum(Communicator& world) {
    for (const at::Tensor& sums : {tokens_LN_, dropped_LN_, squares_L2_, together_LNN_}) {
      if (sums.defined()) world.AllReduceSum(sums);
    }
    MeasuredUsage usage;
    usage.tokens_LN = ToMatrix(tokens_LN_);
    usage.dropped_LN = ToMatrix(dropped_LN_);
    for (int64_t layer = 0; layer < tokens_LN_.size(0) && top_k_ > 1; ++layer)
      usage.together_L.push_back(ToMatrix(together_LNN_[layer]));
    if (!has_squares_) return usage;
    const Matrix squares_L2 = ToMatrix(squares_L2_);
    for (int64_t layer = 0; layer < squares_L2.rows; ++layer) {
      const double experts = squares_L2(layer, 0), hyper = squares_L2(layer, 1);
      usage.hyper_shares_L.push_back(experts > 0 ? std::sqrt(hyper / experts) : 0);
    }
    return usage;
  }

 private:
  void Add(const RoutingResult& layer, int64_t index) {
    const at::Tensor chosen_TN = OneHot(layer.expert_ids_TK);
    tokens_LN_[index] += chosen_TN.sum(0);
    if (layer.taken_TK.defined()) {
      for (int64_t choice = 0; choice < top_k_; ++choice) {
        const at::Tensor late_T1 = layer.taken_TK.narrow(1, choice, 1).logical_not();
        dropped_LN_[index] += (OneHot(layer.expert_ids_TK.narrow(1, choice, 1)) * late_T1).sum(0);
      }
    }
    if (top_k_ > 1) together_LNN_[index] += at::mm(chosen_TN.t(), chosen_TN);
    has_squares_ = layer.squares_2.defined();
    if (has_squares_) squares_L2_[index] += layer.squares_2;
  }

  at::Tensor OneHot(const at::Tensor& expert_ids_TK) const {
    return at::zeros({expert_ids_TK.size(0), num_experts_}, tokens_LN_.options())
        .scatter_(1, expert_ids_TK, 1.0);
  }

  static Matrix ToMatrix(const at::Tensor& tensor) {
    const at::Tensor on_host = tensor.cpu().contiguous();
    Matrix matrix(on_host.size(0), on_host.size(1));
    const double* data = on_host.const_data_ptr<double>();
    matrix.values.assign(data, data + on_host.numel());
    return matrix;
  }

  int64_t num_experts_, top_k_;
  at::Tensor tokens_LN_, dropped_LN_, squares_L2_, together_LNN_;
  bool has_squares_ = false;
};

}  // namespace

MeasuredUsage MeasureUsage(LoadedModel& loaded, const ValidationData& windows,
                           int64_t max_windows) {
  const RunConfig& config = loaded.info.config;
  UsageCounter counter(*loaded.model, config.model());
  ForwardMode mode;
  mode.measure = true;
  const int64_t passed =
      ForEachPass(windows, max_windows, config, *loaded.mesh.world, [&](const Batch& batch) {
        counter.Add(loaded.model->Forward(batch.To(loaded.model->device()), mode).routing);
        return true;
      });
  MeasuredUsage usage = counter.Sum(*loaded.mesh.world);
  usage.windows = passed;
  return usage;
}

}  // namespace hypermoe
