#include "runtime/train_line.h"

#include <nlohmann/json.hpp>
#include <vector>

namespace hypermoe {

nlohmann::json TrainLine(int64_t step, int64_t tokens, double tokens_per_second,
                         const StepResult& result) {
  nlohmann::json load = nlohmann::json::array();
  for (int64_t layer = 0; layer < result.tokens_LN.size(0); ++layer) {
    const at::Tensor tokens_N = result.tokens_LN.select(0, layer).contiguous();
    const int64_t* data = tokens_N.const_data_ptr<int64_t>();
    load.push_back(std::vector<int64_t>(data, data + tokens_N.numel()));
  }
  const StepSeconds& s = result.seconds;
  return {{"kind", "train"},
          {"step", step},
          {"tokens", tokens},
          {"loss", result.loss},
          {"balance_loss", result.balance_loss},
          {"router_z_loss", result.router_z_loss},
          {"grad_norm", result.gradient_norm},
          {"learning_rate", result.learning_rate},
          {"tokens_per_second", tokens_per_second},
          {"seconds",
           {{"data", s.data},
            {"forward", s.forward},
            {"backward", s.backward},
            {"reduce", s.reduce},
            {"optimizer", s.optimizer},
            {"all_to_all", s.all_to_all}}},
          {"expert_load", load},
          {"expert_load_max_over_mean", result.LoadMaxOverMean()},
          {"bytes_sent", static_cast<int64_t>(result.bytes_sent)}};
}

}  // namespace hypermoe
