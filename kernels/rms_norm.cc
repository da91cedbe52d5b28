#include "kernels/rms_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/promote_types.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>

#include "kernels/element_type_of.h"
#include "kernels/rms_norm_arguments.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A GPU takes LibTorch's operators.
struct Normalised {
  at::Tensor y, inverse_T1;
};

Normalised ForwardByOperators(const at::Tensor& exact, const at::Tensor& weight, double epsilon) {
  const at::Tensor inverse_T1 = exact.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
  return {exact.mul(inverse_T1).mul_(weight), inverse_T1};
}

// Of the two gradients those that are `wanted`.
variable_list BackwardByOperators(const at::Tensor& grad, const at::Tensor& x,
                                  const at::Tensor& weight, const at::Tensor& inverse_T1,
                                  std::array<bool, 2> wanted) {
  const at::Tensor normal = x.mul(inverse_T1), product = grad.mul(normal);
  variable_list gradients(2);
  if (wanted[1]) gradients[1] = product.sum(0);
  if (wanted[0]) {
    // As in rms_norm_cpu.cc.
    const at::Tensor along_T1 = product.mul(weight).mean(-1, /*keepdim=*/true);
    gradients[0] = grad.mul(weight).sub_(normal.mul(along_T1)).mul_(inverse_T1);
  }
  return gradients;
}

RmsNormArguments ArgumentsOf(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return {ElementTypeOf(x.scalar_type(), "RmsNorm"),
          x.const_data_ptr(),
          weight.const_data_ptr(),
          epsilon,
          x.size(0),
          x.size(1)};
}

Normalised ForwardOnCpu(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const Normalised out = {at::empty_like(x), at::empty({x.size(0), 1}, weight.options())};
  cpu::RmsNorm(ArgumentsOf(x, weight, epsilon), out.inverse_T1.mutable_data_ptr(),
               out.y.mutable_data_ptr());
  return out;
}

variable_list BackwardOnCpu(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& inverse_T1, std::array<bool, 2> wanted) {
  const auto make = [](bool is_wanted, at::IntArrayRef sizes, const at::TensorOptions& options) {
    return is_wanted ? at::empty(sizes, options) : at::Tensor();
  };
  const int64_t blocks = (x.size(0) + kRmsNormBlock - 1) / kRmsNormBlock;
  const at::Tensor grad_x = make(wanted[0], x.sizes(), x.options()),
                   of_blocks = make(wanted[1], {blocks, x.size(1)}, weight.options());
  const auto data = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
  };
  cpu::RmsNormBackward(ArgumentsOf(x, weight, /*epsilon=*/0), inverse_T1.const_data_ptr(),
                       {grad.const_data_ptr(), data(grad_x), data(of_blocks)});
  return {grad_x, wanted[1] ? of_blocks.sum(0) : at::Tensor()};
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double epsilon) {
    const at::Tensor in = Operand(x, weight), precise_weight = PreciseWeight(x, weight);
    const Normalised out =
        (x.is_cpu() ? ForwardOnCpu : ForwardByOperators)(in, precise_weight, epsilon);
    ctx->save_for_backward({x, weight, out.inverse_T1});
    return out.y.to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse_T1 = saved[2];
    const at::Tensor in = Operand(x, weight), grad = grads[0].to(in.scalar_type()).contiguous();
    const variable_list gradients = (x.is_cpu() ? BackwardOnCpu : BackwardByOperators)(
        grad, in, PreciseWeight(x, weight), inverse_T1,
        {x.requires_grad(), weight.requires_grad()});
    const auto as = [](const at::Tensor& gradient, const at::Tensor& of) {
      return gradient.defined() ? gradient.to(of.scalar_type()) : gradient;
    };
    return {as(gradients[0], x), as(gradients[1], weight), {}};
  }

 private:
  static at::ScalarType Precise(const at::Tensor& x, const at::Tensor& weight) {
    return at::promote_types(at::promote_types(x.scalar_type(), weight.scalar_type()), at::kFloat);
  }
  static at::Tensor PreciseWeight(const at::Tensor& x, const at::Tensor& weight) {
    return weight.to(Precise(x, weight)).contiguous();
  }
  // x as the implementation takes it: the one for CPUs reads narrow elements with float32 sums.
  static at::Tensor Operand(const at::Tensor& x, const at::Tensor& weight) {
    const at::ScalarType precise = Precise(x, weight);
    return x.is_cpu() && precise == at::kFloat ? x.contiguous() : x.to(precise).contiguous();
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D, double epsilon) {
  TORCH_CHECK(x_TD.dim() == 2 && weight_D.dim() == 1 && x_TD.size(1) == weight_D.size(0),
              "RmsNorm: x of shape ", x_TD.sizes(), " and weight of shape ", weight_D.sizes(),
              "; expected [T,D] and [D]");
  return RmsNormFunction::apply(x_TD, weight_D, epsilon);
}

}  // namespace hypermoe
