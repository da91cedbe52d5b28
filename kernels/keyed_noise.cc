#include "kernels/keyed_noise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

namespace hypermoe {
namespace {

// A tensor of x's shape whose part for row b fill(part, key of the row) has filled.
template <typename Fill>
at::Tensor FilledByRow(const at::Tensor& x, const RandomKey& key, const at::Tensor& row_ids_B,
                       const Fill& fill) {
  const int64_t num_rows = row_ids_B.numel();
  const int64_t row_size = num_rows == 0 ? 0 : x.numel() / num_rows;
  TORCH_CHECK(row_size * num_rows == x.numel(), "keyed noise: ", x.numel(),
              " elements cannot be cut into ", num_rows, " rows");
  const at::Tensor filled = at::empty({num_rows, row_size}, x.options().requires_grad(false));
  const int64_t* row_ids = row_ids_B.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < num_rows; ++b) {
    fill(filled.select(0, b), key.Derive(static_cast<uint64_t>(row_ids[b])));
  }
  return filled.view(x.sizes());
}

}  // namespace

at::Tensor KeyedJitter(const at::Tensor& x, double amplitude, const RandomKey& key,
                       const at::Tensor& row_ids_B) {
  TORCH_CHECK(amplitude >= 0 && amplitude < 1, "jitter ", amplitude, " is not in [0, 1)");
  if (amplitude == 0) return x;
  return x * FilledByRow(x, key, row_ids_B, [&](const at::Tensor& row, const RandomKey& row_key) {
           FillUniform(row, row_key, 1 - amplitude, 1 + amplitude);
         });
}

at::Tensor KeyedNormalLike(const at::Tensor& x, const RandomKey& key, const at::Tensor& row_ids_B) {
  return FilledByRow(x, key, row_ids_B, [](const at::Tensor& row, const RandomKey& row_key) {
    FillNormal(row, row_key, 1.0);
  });
}

}  // namespace hypermoe
