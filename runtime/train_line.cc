#include "runtime/train_line.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

// A NaN's sign means nothing.
std::string NumberText(double number) { return std::isnan(number) ? "NaN" : absl::StrCat(number); }

// Of the step, by kind of collective: calls and seconds of a rank in the mean, bytes of all ranks.
nlohmann::json TrafficOf(const StepResult& result) {
  nlohmann::json traffic = nlohmann::json::object();
  for (int kind = 0; kind < kNumCollectives; ++kind) {
    const Traffic& of_kind = result.traffic[static_cast<size_t>(kind)];
    if (of_kind.calls == 0) continue;
    traffic[CollectiveName(static_cast<Collective>(kind))] = {
        {"calls", of_kind.calls}, {"bytes", of_kind.bytes}, {"seconds", of_kind.seconds}};
  }
  return traffic;
}

}  // namespace

nlohmann::json TrainLine(int64_t step, int64_t tokens, const StepRate& rate,
                         const StepResult& result) {
  nlohmann::json load = nlohmann::json::array(), dropped = nlohmann::json::array();
  for (int64_t layer = 0; layer < result.tokens_LN.size(0); ++layer) {
    const at::Tensor tokens_N = result.tokens_LN.select(0, layer).contiguous();
    const int64_t* data = tokens_N.const_data_ptr<int64_t>();
    load.push_back(std::vector<int64_t>(data, data + tokens_N.numel()));
    dropped.push_back(result.dropped_LN.select(0, layer).sum().item<int64_t>());
  }
  const StepSeconds& s = result.seconds;
  nlohmann::json line = {{"kind", "train"},
                         {"step", step},
                         {"tokens", tokens},
                         {"loss", result.loss},
                         {"balance_loss", result.balance_loss},
                         {"importance_loss", result.importance_loss},
                         {"load_loss", result.load_loss},
                         {"router_z_loss", result.router_z_loss},
                         {"grad_norm", result.gradient_norm},
                         {"learning_rate", result.learning_rate},
                         {"skipped_steps", result.skipped_steps},
                         {"tokens_per_second", rate.tokens_per_second},
                         {"seconds",
                          {{"data", s.data},
                           {"forward", s.forward},
                           {"backward", s.backward},
                           {"reduce", s.reduce},
                           {"optimizer", s.optimizer},
                           {"all_to_all", s.all_to_all}}},
                         {"expert_load", load},
                         {"expert_load_max_over_mean", result.LoadMaxOverMean()},
                         {"idle_experts", result.IdleExperts()},
                         {"dropped_tokens", dropped},
                         {"dropped_share", result.DroppedShare()},
                         {"memory_bytes", result.memory_bytes},
                         {"bytes_sent", result.BytesSent()},
                         {"traffic", TrafficOf(result)}};
  if (rate.mfu.has_value()) line["mfu"] = *rate.mfu;
  const std::vector<double>& shares = result.hyper_shares;
  if (!shares.empty()) {
    line["hyper_shares"] = shares;
    line["hyper_share"] =
        std::accumulate(shares.begin(), shares.end(), 0.0) / static_cast<double>(shares.size());
  }
  return line;
}

std::string NumbersText(const StepResult& result) {
  return absl::StrCat("loss ", NumberText(result.loss), ", gradient norm ",
                      NumberText(result.gradient_norm));
}

}  // namespace hypermoe
