#include "kernels/keyed_dropout.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/keyed_dropout_arguments.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// uint8 mask of x's shape: 1 where an element is kept.
at::Tensor KeepMask(const at::Tensor& x, double probability, const RandomKey& key,
                    const at::Tensor& row_ids_B) {
  const int64_t num_rows = row_ids_B.numel();
  const int64_t row_size = num_rows == 0 ? 0 : x.numel() / num_rows;
  TORCH_CHECK(row_size * num_rows == x.numel(), "dropout: ", x.numel(),
              " elements cannot be cut into ", num_rows, " rows");
  TORCH_CHECK(row_ids_B.scalar_type() == at::kLong && row_ids_B.device() == x.device(),
              "dropout: row ids of ", row_ids_B.scalar_type(), " on ", row_ids_B.device(),
              ", expected int64 on ", x.device(), " with what is dropped");
  const at::Tensor mask = at::empty(x.sizes(), x.options().dtype(at::kByte).requires_grad(false));
  const at::Tensor row_ids = row_ids_B.contiguous();
  constexpr double kTwoTo24 = 16777216.0;
  (x.is_cuda() ? cuda::DropoutMask : cpu::DropoutMask)(
      {key, row_ids.const_data_ptr<int64_t>(), num_rows, row_size,
       static_cast<uint32_t>(probability * kTwoTo24), mask.mutable_data_ptr<uint8_t>()});
  return mask;
}

class KeyedDropoutFunction : public torch::autograd::Function<KeyedDropoutFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double probability,
                            const RandomKey& key, const at::Tensor& row_ids_B) {
    at::Tensor mask = KeepMask(x, probability, key, row_ids_B);
    ctx->save_for_backward({mask});
    ctx->saved_data["scale"] = 1.0 / (1.0 - probability);
    return x.mul(mask).mul_(1.0 / (1.0 - probability));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor mask = ctx->get_saved_variables()[0];
    return {grads[0].mul(mask).mul_(ctx->saved_data["scale"].toDouble()), {}, {}, {}};
  }
};

}  // namespace

at::Tensor KeyedDropout(const at::Tensor& x, double probability, const RandomKey& key,
                        const at::Tensor& row_ids_B) {
  TORCH_CHECK(probability >= 0 && probability < 1, "dropout probability ", probability,
              " is not in [0, 1)");
  if (probability == 0) return x;
  return KeyedDropoutFunction::apply(x, probability, key, row_ids_B);
}

}  // namespace hypermoe
