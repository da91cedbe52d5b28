#include "kernels/keyed_dropout.h"

#include <ATen/Parallel.h>
#include <ATen/core/PhiloxRNGEngine.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

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
  at::Tensor mask = at::empty(x.sizes(), x.options().dtype(at::kByte));
  const int64_t* row_ids = row_ids_B.const_data_ptr<int64_t>();
  uint8_t* kept = mask.mutable_data_ptr<uint8_t>();
  constexpr double kTwoTo24 = 16777216.0;
  const auto threshold = static_cast<uint32_t>(probability * kTwoTo24);
  at::parallel_for(0, num_rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const RandomKey row_key = key.Derive(static_cast<uint64_t>(row_ids[b]));
      at::philox_engine engine(row_key.seed, row_key.stream, 0);
      uint8_t* row = kept + b * row_size;
      for (int64_t j = 0; j < row_size; ++j) row[j] = (engine() >> 8) >= threshold;
    }
  });
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
