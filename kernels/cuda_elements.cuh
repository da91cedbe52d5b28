// Elements in CUDA kernels: their conversions, and loads and stores of several at once.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/element_type.h"

namespace hypermoe::cuda {

// The type that sums of such elements are made in.
template <typename Sum, typename Element>
__device__ Sum ToSum(Element x) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    return __bfloat162float(x);
  } else {
    return x;
  }
}
// Rounded to nearest even.
template <typename Element, typename Sum>
__device__ Element FromSum(Sum x) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

// Elements of one 16-byte access.
constexpr int kAccessBytes = 16;
template <typename Element>
constexpr int kPackOf = kAccessBytes / static_cast<int>(sizeof(Element));

template <typename Element, int kSize>
struct alignas(kSize * sizeof(Element)) Pack {
  Element elements[kSize];

  __device__ Element& operator[](int i) { return elements[i]; }
  __device__ const Element& operator[](int i) const { return elements[i]; }
  // At a multiple of the pack's size.
  static __device__ Pack Load(const Element* from) { return *reinterpret_cast<const Pack*>(from); }
  __device__ void Store(Element* to) const { *reinterpret_cast<Pack*>(to) = *this; }
};

// Whether accesses of 16 bytes may begin at all of these.
template <typename... Pointers>
bool IsAligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % kAccessBytes == 0) && ...);
}

// Calls `body` with a value of the element's type and one of the type that its sums are made in.
template <typename Body>
void WithElement(ElementType type, const Body& body) {
  switch (type) {
    case ElementType::kFloat64:
      return body(double{}, double{});
    case ElementType::kBFloat16:
      return body(__nv_bfloat16{}, float{});
    case ElementType::kFloat32:
      return body(float{}, float{});
  }
}

}  // namespace hypermoe::cuda
