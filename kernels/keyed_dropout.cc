#include "kernels/keyed_dropout.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/keyed_dropout_arguments.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class KeyedDropoutFunction : public torch::autograd::Function<KeyedDropoutFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double probability,
                            const RandomKey& key, const at::Tensor& row_ids_B) {
    TORCH_CHECK(row_ids_B.device() == x.device(), "dropout: row ids on ", row_ids_B.device(),
                ", expected on ", x.device(), " with what is dropped");
    const at::Tensor mask = DropoutMask(x.sizes(), probability, key, row_ids_B);
    ctx->save_for_backward({mask});
    ctx->saved_data["probability"] = probability;
    return Drop(x, mask, probability);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor mask = ctx->get_saved_variables()[0];
    return {Drop(grads[0], mask, ctx->saved_data["probability"].toDouble()), {}, {}, {}};
  }

 private:
  static at::Tensor Drop(const at::Tensor& x, const at::Tensor& mask, double probability) {
    at::Tensor out = at::empty_like(x);
    DropInto(out, x, mask, probability);
    return out;
  }
};

}  // namespace

at::Tensor DropoutMask(at::IntArrayRef sizes, double probability, const RandomKey& key,
                       const at::Tensor& row_ids_B) {
  TORCH_CHECK(probability >= 0 && probability < 1, "dropout probability ", probability,
              " is not in [0, 1)");
  if (probability == 0) return {};
  TORCH_CHECK(row_ids_B.scalar_type() == at::kLong, "dropout: row ids of ", row_ids_B.scalar_type(),
              ", expected int64");
  const at::Tensor row_ids = row_ids_B.contiguous(),
                   mask = at::empty(sizes, row_ids.options().dtype(at::kByte));
  const int64_t num_rows = row_ids.numel();
  const int64_t row_size = num_rows == 0 ? 0 : mask.numel() / num_rows;
  TORCH_CHECK(row_size * num_rows == mask.numel(), "dropout: ", mask.numel(),
              " elements cannot be cut into ", num_rows, " rows");
  constexpr double kTwoTo24 = 16777216.0;
  (mask.is_cuda() ? cuda::DropoutMask : cpu::DropoutMask)(
      {key, row_ids.const_data_ptr<int64_t>(), num_rows, row_size,
       static_cast<uint32_t>(probability * kTwoTo24), mask.mutable_data_ptr<uint8_t>()});
  return mask;
}

void DropInto(at::Tensor out, const at::Tensor& x, const at::Tensor& mask, double probability) {
  at::mul_out(out, x, mask).mul_(1.0 / (1.0 - probability));
}

at::Tensor KeyedDropout(const at::Tensor& x, double probability, const RandomKey& key,
                        const at::Tensor& row_ids_B) {
  TORCH_CHECK(probability >= 0 && probability < 1, "dropout probability ", probability,
              " is not in [0, 1)");
  if (probability == 0) return x;
  return KeyedDropoutFunction::apply(x, probability, key, row_ids_B);
}

}  // namespace hypermoe
