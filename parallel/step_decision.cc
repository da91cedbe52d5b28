#include "parallel/step_decision.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros_like.h>

#include "parallel/gradient_norm.h"

namespace hypermoe {
namespace {

at::Tensor NotAllFinite(const at::Tensor& numbers) {
  return at::isfinite(numbers).all().logical_not().view({1});
}

}  // namespace

StepDecision DecideStep(const std::vector<FlatBuffer>& buffers,
                        const std::vector<GradientBucket>& buckets, const at::Tensor& own_losses,
                        double max_norm, SkipRule rule, Communicator& world) {
  const at::Tensor numbers =
      at::cat({OwnSumOfSquares(buffers, buckets, world), own_losses.reshape({-1})});
  StepDecision decision;
  if (rule == SkipRule::kAlone) decision.skip = NotAllFinite(numbers);
  world.AllReduceSum(numbers);
  if (rule == SkipRule::kTogether) decision.skip = NotAllFinite(numbers);
  if (rule == SkipRule::kNever) decision.skip = at::zeros_like(NotAllFinite(numbers));
  decision.losses = numbers.slice(0, 1);
  decision.gradient_norm = numbers.slice(0, 0, 1).sqrt();
  decision.clip_scale = ClipScale(decision.gradient_norm, max_norm);
  return decision;
}

}  // namespace hypermoe
