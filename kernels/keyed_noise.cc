#include "kernels/keyed_noise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

namespace hypermoe {
namespace {

// [B,N] for the elements of x, N of each row.
at::Tensor EmptyRows(const at::Tensor& x, const at::Tensor& row_ids_B) {
  const int64_t num_rows = row_ids_B.numel();
  const int64_t row_size = num_rows == 0 ? 0 : x.numel() / num_rows;
  TORCH_CHECK(row_size * num_rows == x.numel(), "keyed noise: ", x.numel(),
              " elements cannot be cut into ", num_rows, " rows");
  return at::empty({num_rows, row_size}, x.options().requires_grad(false));
}

}  // namespace

at::Tensor KeyedJitter(const at::Tensor& x, double amplitude, const RandomKey& key,
                       const at::Tensor& row_ids_B) {
  TORCH_CHECK(amplitude >= 0 && amplitude < 1, "jitter ", amplitude, " is not in [0, 1)");
  if (amplitude == 0) return x;
  const at::Tensor factors_BN = EmptyRows(x, row_ids_B);
  FillUniformRows(factors_BN, key, row_ids_B, 1 - amplitude, 1 + amplitude);
  return x * factors_BN.view(x.sizes());
}

at::Tensor KeyedNormalLike(const at::Tensor& x, const RandomKey& key, const at::Tensor& row_ids_B) {
  const at::Tensor noise_BN = EmptyRows(x, row_ids_B);
  FillNormalRows(noise_BN, key, row_ids_B, 1.0);
  return noise_BN.view(x.sizes());
}

}  // namespace hypermoe
