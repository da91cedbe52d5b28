#include "kernels/sum_of_squares.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include "kernels/element_type_of.h"
#include "kernels/flat_arrays_of.h"
#include "kernels/sum_of_squares_arguments.h"

namespace hypermoe {

at::Tensor SumOfSquares(const std::vector<at::Tensor>& arrays, at::Device device) {
  const std::vector<FlatArray> flat = FlatArraysOf(arrays, device, "SumOfSquares");
  const at::ScalarType dtype = arrays.empty() ? at::kFloat : arrays[0].scalar_type();
  SumOfSquaresArguments in = {ElementTypeOf(dtype, "SumOfSquares"), flat.data(),
                              static_cast<int64_t>(flat.size()), nullptr, nullptr};
  TORCH_CHECK(in.element != ElementType::kBFloat16, "SumOfSquares: arrays of ", dtype,
              ", expected float32 or float64");
  const auto options = at::TensorOptions(at::kDouble).device(device);
  const at::Tensor tile_sums = at::empty({in.tiles()}, options), sum = at::empty({1}, options);
  in.tile_sums = tile_sums.mutable_data_ptr<double>();
  in.sum = sum.mutable_data_ptr<double>();
  (device.is_cuda() ? cuda::SumOfSquares : cpu::SumOfSquares)(in);
  return sum;
}

}  // namespace hypermoe
