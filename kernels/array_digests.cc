#include "kernels/array_digests.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include "kernels/array_digests_arguments.h"
#include "kernels/flat_arrays_of.h"

namespace hypermoe {

at::Tensor ArrayDigests(const std::vector<at::Tensor>& arrays, at::Device device) {
  const std::vector<FlatArray> flat = FlatArraysOf(arrays, device, "ArrayDigests");
  const int64_t bytes = arrays.empty() ? 4 : static_cast<int64_t>(arrays[0].element_size());
  TORCH_CHECK(bytes == 4 || bytes == 8, "ArrayDigests: elements have ", bytes,
              " bytes, expected 4 or 8");
  const at::Tensor digests =
      at::zeros({static_cast<int64_t>(flat.size())}, at::TensorOptions(at::kLong).device(device));
  (device.is_cuda() ? cuda::ArrayDigests : cpu::ArrayDigests)(
      {static_cast<int>(bytes), flat.data(), digests.numel(),
       reinterpret_cast<uint64_t*>(digests.mutable_data_ptr<int64_t>())});
  return digests;
}

}  // namespace hypermoe
