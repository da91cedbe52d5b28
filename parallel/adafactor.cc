#include "parallel/adafactor.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/util/accumulate.h>

#include <cmath>
#include <utility>

#include "kernels/sum_of_squares.h"

namespace hypermoe {
namespace {

// Second moments of float32 beyond it are taken to be it, so that a gradient whose square is beyond
// float32 leaves a moment that decays again, and means over many of them are finite.
constexpr double kLargestMoment = 1e33;

bool IsExpert(const Parameter& parameter) { return parameter.group == ParameterGroup::kExpert; }

// Of the tensor that stands under one name, in the order of axes in which it is kept.
at::IntArrayRef OwnShape(const Parameter& parameter) {
  return parameter.value.sizes().slice(IsExpert(parameter) ? 1 : 0);
}

int64_t ColumnsAxis(const Parameter& parameter) { return parameter.named_transposed ? -2 : -1; }

// Replaces `target` by `updated`, unless the update is skipped.
void Store(const at::Tensor& updated, const at::Tensor& skip, const at::Tensor& target) {
  target.copy_(skip.defined() ? at::where(skip, target, updated) : updated);
}

// Of each of the tensors along the first axis, of which there is at least one: float64 [tensors].
at::Tensor RootMeanSquares(const at::Tensor& stack) {
  std::vector<at::Tensor> sums;
  for (int64_t i = 0; i < stack.size(0); ++i)
    sums.push_back(SumOfSquares({stack.select(0, i)}, stack.device()));
  return at::cat(sums).div_(static_cast<double>(stack.numel() / stack.size(0))).sqrt_();
}

}  // namespace

bool IsFactored(at::IntArrayRef shape, int64_t min_dim_size_to_factor) {
  return shape.size() == 2 && shape[0] >= min_dim_size_to_factor &&
         shape[1] >= min_dim_size_to_factor;
}

Adafactor::Adafactor(const std::vector<FlatBuffer>& buffers, AdafactorOptions options)
    : Optimizer(buffers, {"row_moment", "column_moment", "second_moment"}),
      options_(options),
      arrays_(kinds().size()) {
  for (const FlatBuffer& buffer : buffers) {
    const size_t first = stacks_.size();
    for (size_t i = 0; i < buffer.parameters().size(); ++i) {
      const Parameter& parameter = *buffer.parameters()[i];
      if (parameter.frozen) continue;
      const auto stacked = [&](const at::Tensor& tensor) {
        return IsExpert(parameter) ? tensor : tensor.unsqueeze(0);
      };
      stacks_.push_back({stacked(buffer.View(buffer.values(), i)),
                         stacked(buffer.View(buffer.gradients(), i)),
                         std::vector<at::Tensor>(kinds().size()), ColumnsAxis(parameter)});
    }
    for (size_t kind = 0; kind < kinds().size(); ++kind) AddArray(buffer, kind, first);
  }
}

void Adafactor::AddArray(const FlatBuffer& buffer, size_t kind, size_t first_stack) {
  int64_t elements = 0;
  for (const Parameter* parameter : buffer.parameters())
    elements +=
        c10::multiply_integers(StateShape(*parameter, kind).value_or(std::vector<int64_t>{0}));
  const at::Tensor array = at::zeros({elements}, buffer.values().options());
  arrays_[kind].push_back(array);
  int64_t offset = 0;
  for (const Parameter* parameter : buffer.parameters()) {
    if (parameter->frozen) continue;
    Stack& stack = stacks_[first_stack++];
    const std::optional<std::vector<int64_t>> shape = StateShape(*parameter, kind);
    if (!shape) continue;
    const int64_t size = c10::multiply_integers(*shape);
    const at::Tensor state = array.narrow(0, offset, size).view(*shape);
    stack.state[kind] = IsExpert(*parameter) ? state : state.unsqueeze(0);
    offset += size;
  }
}

int64_t Adafactor::kept_elements() const {
  int64_t elements = 0;
  for (const std::vector<at::Tensor>& arrays : arrays_)
    for (const at::Tensor& array : arrays) elements += array.numel();
  return elements;
}

void Adafactor::SetState(size_t buffer, size_t kind, int64_t offset, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  arrays_[kind][buffer].narrow(0, offset, values.numel()).copy_(values.reshape({-1}));
}

std::optional<std::vector<int64_t>> Adafactor::ShapeOf(const Parameter& parameter,
                                                       size_t kind) const {
  const at::IntArrayRef own = OwnShape(parameter);
  if (IsFactored(own, options_.min_dim_size_to_factor) == (kind == kFull)) return std::nullopt;
  if (kind == kFull) return parameter.value.sizes().vec();
  std::vector<int64_t> shape = {own[(kind == kRows) == parameter.named_transposed ? 1 : 0]};
  if (IsExpert(parameter)) shape.insert(shape.begin(), parameter.value.size(0));
  return shape;
}

void Adafactor::Update(double learning_rate, const at::Tensor& gradient_scale,
                       const at::Tensor& skip) {
  Factors factors;
  factors.learning_rate = learning_rate;
  factors.beta = 1 - std::pow(static_cast<double>(steps()), -options_.decay_rate);
  if (skip.defined()) factors.skip = skip.to(at::kBool);
  for (const Stack& stack : stacks_) {
    if (stack.value.numel() == 0) continue;  // of experts that are elsewhere
    if (gradient_scale.defined()) factors.gradient_scale = gradient_scale.to(stack.value.dtype());
    UpdateStack(stack, factors);
  }
}

void Adafactor::UpdateStack(const Stack& stack, const Factors& factors) const {
  const at::Tensor u = Normalized(stack, factors);
  std::vector<int64_t> broadcast(static_cast<size_t>(u.dim()), 1);
  broadcast[0] = u.size(0);
  u.mul_(StepSizes(stack, u, factors.learning_rate).to(u.dtype()).view(broadcast));
  Store(u.add_(stack.value), factors.skip, stack.value);
}

at::Tensor Adafactor::Normalized(const Stack& stack, const Factors& factors) const {
  const at::Tensor u = factors.gradient_scale.defined() ? stack.gradient * factors.gradient_scale
                                                        : stack.gradient.clone();
  const at::Tensor squares = u.square().add_(options_.epsilon1);
  const auto advanced = [&](const at::Tensor& state, const at::Tensor& now) {
    now.mul_(1 - factors.beta).add_(state, factors.beta);
    if (now.scalar_type() == at::kFloat) now.clamp_max_(kLargestMoment);
    Store(now, factors.skip, state);
    return now;
  };
  if (stack.state[kFull].defined()) {
    return u.mul_(advanced(stack.state[kFull], squares).rsqrt_());
  }
  const int64_t columns_axis = stack.columns_axis, rows_axis = -3 - columns_axis;
  const at::Tensor rows = advanced(stack.state[kRows], squares.mean(columns_axis)),
                   columns = advanced(stack.state[kColumns], squares.mean(rows_axis));
  // The mean of R is that of C: the shorter one, as the sum of one long vector would depend on the
  // number of threads.
  const at::Tensor mean =
      (rows.size(1) <= columns.size(1) ? rows : columns).mean(/*dim=*/1, /*keepdim=*/true);
  // R C may be beyond float32, the roots are not.
  u.mul_((rows.rsqrt() * mean.sqrt()).unsqueeze_(columns_axis));
  return u.mul_(columns.rsqrt().unsqueeze_(rows_axis));
}

at::Tensor Adafactor::StepSizes(const Stack& stack, const at::Tensor& u,
                                double learning_rate) const {
  const at::Tensor sizes = at::full({u.size(0)}, -learning_rate, u.options().dtype(at::kDouble));
  if (options_.clipping_threshold > 0) {
    sizes.div_(RootMeanSquares(u).div_(options_.clipping_threshold).clamp_min_(1));
  }
  if (options_.multiply_by_parameter_scale) {
    sizes.mul_(RootMeanSquares(stack.value).clamp_min_(options_.epsilon2));
  }
  return sizes;
}

}  // namespace hypermoe
