#include "kernels/layer_norm.h"

#include <ATen/ops/layer_norm.h>

namespace hypermoe {

at::Tensor LayerNorm(const at::Tensor& x_RD, const at::Tensor& weight_D, const at::Tensor& bias_D,
                     double epsilon) {
  const at::ScalarType dtype = x_RD.scalar_type();
  // LibTorch's kernel for GPUs takes weights of x's own type only.
  const bool convert = !x_RD.is_cpu() && dtype != weight_D.scalar_type();
  const at::Tensor x = convert ? x_RD.to(weight_D.scalar_type()) : x_RD;
  const at::Tensor y = at::layer_norm(x, weight_D.sizes(), weight_D, bias_D, epsilon);
  return convert ? y.to(dtype) : y;
}

}  // namespace hypermoe
