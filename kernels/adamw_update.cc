#include "kernels/adamw_update.h"

#include <c10/util/Exception.h>

#include "kernels/adamw_update_arguments.h"
#include "kernels/element_type_of.h"

namespace hypermoe {
namespace {

void CheckPiece(const AdamWPiece& piece, const at::Tensor& like) {
  for (const at::Tensor& array : {piece.value, piece.gradient, piece.m, piece.v}) {
    TORCH_CHECK(
        array.numel() == piece.value.numel() && array.scalar_type() == like.scalar_type() &&
            array.device() == like.device() && array.is_contiguous(),
        "AdamWUpdate: arrays must be contiguous and agree in length, dtype and device, got ",
        piece.value.numel(), " elements of ", like.scalar_type(), " on ", like.device(), " and ",
        array.numel(), " of ", array.scalar_type(), " on ", array.device());
  }
  const at::Tensor& copy = piece.copy;
  TORCH_CHECK(!copy.defined() ||
                  (copy.numel() == piece.value.numel() && copy.scalar_type() == at::kBFloat16 &&
                   copy.device() == like.device() && copy.is_contiguous()),
              "AdamWUpdate: the copy of ", piece.value.numel(), " elements on ", like.device(),
              " has ", copy.numel(), " of ", copy.scalar_type(), " on ", copy.device(),
              ", expected as many of bfloat16, contiguous, there");
}

// One element in the dtype that the kernels read, or undefined.
at::Tensor OneElement(const at::Tensor& tensor, at::ScalarType dtype, const at::Tensor& like,
                      const char* name) {
  if (!tensor.defined()) return tensor;
  TORCH_CHECK(tensor.numel() == 1 && tensor.device() == like.device(), "AdamWUpdate: ", name,
              " has ", tensor.numel(), " elements on ", tensor.device(), ", expected one on ",
              like.device());
  return tensor.to(dtype);
}

template <typename Scalar>
const Scalar* DataOf(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<Scalar>() : nullptr;
}

AdamWArrays ArraysOf(const AdamWPiece& piece) {
  return {piece.value.mutable_data_ptr(),
          piece.gradient.const_data_ptr(),
          piece.m.mutable_data_ptr(),
          piece.v.mutable_data_ptr(),
          piece.copy.defined() ? piece.copy.mutable_data_ptr() : nullptr,
          piece.value.numel(),
          piece.value_decay};
}

}  // namespace

void AdamWUpdate(const std::vector<AdamWPiece>& pieces, const AdamWFactors& factors) {
  if (pieces.empty()) return;
  const at::Tensor& like = pieces[0].value;
  for (const AdamWPiece& piece : pieces) CheckPiece(piece, like);
  const ElementType element = ElementTypeOf(like.scalar_type(), "AdamWUpdate");
  TORCH_CHECK(element != ElementType::kBFloat16, "AdamWUpdate: values of ", like.scalar_type(),
              ", expected float32 or float64");
  const at::Tensor scale = OneElement(factors.device_gradient_scale, at::kDouble, like,
                                      "device_gradient_scale"),
                   skip = OneElement(factors.skip, at::kBool, like, "skip");
  std::vector<AdamWArrays> arrays;
  for (const AdamWPiece& piece : pieces) arrays.push_back(ArraysOf(piece));
  (like.is_cuda() ? cuda::AdamWUpdate : cpu::AdamWUpdate)(
      {element, arrays.data(), static_cast<int64_t>(arrays.size()), factors.gradient_scale,
       factors.beta1, factors.beta2, factors.step_size, factors.second_correction, factors.epsilon,
       DataOf<double>(scale), DataOf<bool>(skip)});
}

}  // namespace hypermoe
