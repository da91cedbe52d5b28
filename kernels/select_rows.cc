#include "kernels/select_rows.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class SelectRowsFunction : public torch::autograd::Function<SelectRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const at::Tensor& index) {
    ctx->save_for_backward({index});
    ctx->saved_data["shape"] = rows.sizes().vec();
    return at::index_select(rows, 0, index);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor index = ctx->get_saved_variables()[0];
    const at::Tensor grad = at::zeros(ctx->saved_data["shape"].toIntVector(), grads[0].options());
    return {grad.index_copy_(0, index, grads[0]), {}};
  }
};

}  // namespace

at::Tensor SelectRows(const at::Tensor& rows, const at::Tensor& index_K) {
  return SelectRowsFunction::apply(rows, index_K);
}

}  // namespace hypermoe
