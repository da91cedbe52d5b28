// Autograd functions and operators take an absent input as an empty optional, our own interfaces as
// an undefined tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace hypermoe {

inline std::optional<at::Tensor> OptionalTensor(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// The opposite, in another dtype.
inline at::Tensor Cast(const std::optional<at::Tensor>& tensor, at::ScalarType dtype) {
  return tensor.has_value() ? tensor->to(dtype) : at::Tensor();
}

}  // namespace hypermoe
