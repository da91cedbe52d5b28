#include "kernels/keyed_jitter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

namespace hypermoe {

at::Tensor KeyedJitter(const at::Tensor& x, double amplitude, const RandomKey& key,
                       const at::Tensor& row_ids_B) {
  TORCH_CHECK(amplitude >= 0 && amplitude < 1, "jitter ", amplitude, " is not in [0, 1)");
  if (amplitude == 0) return x;
  const int64_t num_rows = row_ids_B.numel();
  const int64_t row_size = num_rows == 0 ? 0 : x.numel() / num_rows;
  TORCH_CHECK(row_size * num_rows == x.numel(), "jitter: ", x.numel(),
              " elements cannot be cut into ", num_rows, " rows");
  at::Tensor factors = at::empty({num_rows, row_size}, x.options());
  const int64_t* row_ids = row_ids_B.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < num_rows; ++b) {
    FillUniform(factors.select(0, b), key.Derive(static_cast<uint64_t>(row_ids[b])), 1 - amplitude,
                1 + amplitude);
  }
  return x * factors.view(x.sizes());
}

}  // namespace hypermoe
