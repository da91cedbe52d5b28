// What AdamWUpdate's two implementations are given, and what they do to an element
// (adamw_update.h). Free of LibTorch.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/element_type.h"
#include "kernels/host_device.h"

namespace hypermoe {

// Contiguous arrays on the device of the implementation.
struct AdamWArrays {
  void* value;
  const void* gradient;
  void *m, *v;
  void* copy;  // of bfloat16; null: none
  int64_t count;
  double value_decay;
};

struct AdamWUpdateArguments {
  ElementType element;        // kFloat32 or kFloat64
  const AdamWArrays* pieces;  // this list itself is on the host
  int64_t num_pieces;
  double gradient_scale, beta1, beta2, step_size, second_correction, epsilon;
  const double* device_gradient_scale;  // on the device; null: 1
  const bool* skip;                     // there too; null: false
};

// The factors in the precision of the elements; what differs between pieces is set later.
template <typename Scalar>
struct AdamWScalars {
  Scalar gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size,
      second_correction, epsilon, value_decay;

  explicit AdamWScalars(const AdamWUpdateArguments& in)
      : gradient_scale(static_cast<Scalar>(in.gradient_scale)),
        beta1(static_cast<Scalar>(in.beta1)),
        one_minus_beta1(static_cast<Scalar>(1 - in.beta1)),
        beta2(static_cast<Scalar>(in.beta2)),
        one_minus_beta2(static_cast<Scalar>(1 - in.beta2)),
        step_size(static_cast<Scalar>(in.step_size)),
        second_correction(static_cast<Scalar>(in.second_correction)),
        epsilon(static_cast<Scalar>(in.epsilon)),
        value_decay(1) {}
};

// Compiled without fused multiply-add on every device (CMakeLists.txt): on CPUs the compiler gives
// that to whole vectors, but not to the elements after the last one.
template <typename Scalar>
HYPERMOE_HOST_DEVICE inline void UpdateElement(Scalar& x, Scalar g, Scalar& m, Scalar& v,
                                               const AdamWScalars<Scalar>& f) {
  const Scalar gradient = g * f.gradient_scale;
  const Scalar first = f.beta1 * m + f.one_minus_beta1 * gradient;
  const Scalar second = f.beta2 * v + f.one_minus_beta2 * (gradient * gradient);
  m = first;
  v = second;
  x = x * f.value_decay -
      f.step_size * first / (std::sqrt(second * f.second_correction) + f.epsilon);
}

namespace cpu {
void AdamWUpdate(const AdamWUpdateArguments& in);
}

// On the current stream.
namespace cuda {
void AdamWUpdate(const AdamWUpdateArguments& in);
}

}  // namespace hypermoe
