// Between LibTorch's types of elements and ours.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include "kernels/element_type.h"

namespace hypermoe {

// Throws c10::Error, naming the kernel, for another type than float32, float64 and bfloat16.
inline ElementType ElementTypeOf(c10::ScalarType dtype, const char* kernel) {
  switch (dtype) {
    case c10::kFloat:
      return ElementType::kFloat32;
    case c10::kDouble:
      return ElementType::kFloat64;
    case c10::kBFloat16:
      return ElementType::kBFloat16;
    default:
      TORCH_CHECK(false, kernel, ": elements are ", dtype,
                  ", expected float32, float64 or bfloat16");
  }
}

// Calls `body` with a value of the element's type and one of the type that its sums are made in.
template <typename Body>
void WithElementType(ElementType type, const Body& body) {
  switch (type) {
    case ElementType::kFloat64:
      return body(double{}, double{});
    case ElementType::kBFloat16:
      return body(c10::BFloat16{}, float{});
    case ElementType::kFloat32:
      return body(float{}, float{});
  }
}

}  // namespace hypermoe
