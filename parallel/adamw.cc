#include "parallel/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

namespace hypermoe {

AdamW::AdamW(const std::vector<FlatBuffer>& buffers, AdamWOptions options)
    : buffers_(buffers), options_(options) {
  for (const FlatBuffer& buffer : buffers_) {
    first_.push_back(at::zeros_like(buffer.values()));
    second_.push_back(at::zeros_like(buffer.values()));
  }
}

void AdamW::Step(double learning_rate) {
  at::NoGradGuard no_grad;
  ++steps_;
  // In float64 for every dtype: LibTorch's kernel takes its power of the betas.
  const at::Tensor step = at::full({}, static_cast<double>(steps_), at::kDouble);
  const auto update = [&](size_t index, int64_t begin, int64_t end, double weight_decay) {
    if (begin == end) return;
    const auto part = [&](const at::Tensor& flat) { return flat.slice(0, begin, end); };
    at::_fused_adamw_({part(buffers_[index].values())}, {part(buffers_[index].gradients())},
                      {part(first_[index])}, {part(second_[index])}, /*max_exp_avg_sqs=*/{}, {step},
                      learning_rate, options_.beta1, options_.beta2, weight_decay, options_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false);
  };
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const int64_t decayed = buffers_[i].decayed_elements();
    update(i, 0, decayed, options_.weight_decay);
    update(i, decayed, buffers_[i].values().numel(), 0.0);
  }
}

}  // namespace hypermoe
