// From LibTorch's tensors to arrays.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <vector>

#include "kernels/flat_array.h"

namespace hypermoe {

// Throws c10::Error, naming the kernel, unless all are contiguous, on `device` (any of its kind, if
// it has no number) and of one dtype.
inline std::vector<FlatArray> FlatArraysOf(const std::vector<at::Tensor>& tensors,
                                           at::Device device, const char* kernel) {
  std::vector<FlatArray> arrays;
  for (const at::Tensor& tensor : tensors) {
    const at::Device place = tensor.device();
    TORCH_CHECK(place == tensors[0].device() && place.type() == device.type() &&
                    (!device.has_index() || place == device) && tensor.is_contiguous() &&
                    tensor.scalar_type() == tensors[0].scalar_type(),
                kernel, ": an array of ", tensor.scalar_type(), " on ", place,
                tensor.is_contiguous() ? "" : ", not contiguous,", " was given, expected ",
                tensors[0].scalar_type(), " on ", device, ", contiguous");
    arrays.push_back({tensor.const_data_ptr(), tensor.numel()});
  }
  return arrays;
}

}  // namespace hypermoe
