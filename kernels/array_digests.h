// A number for each of many arrays that tells whether copies of it are the same, bit for bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace hypermoe {

// int64 [arrays] on `device`, which the host need not wait for. The arrays are of one dtype of 4 or
// 8 bytes, contiguous and on `device`; there may be none, and empty ones (0). Made of an element's
// bits and its place: one element changed always changes the digest, several (exchanged ones, too)
// but for one case in 2^64. The same on every device, for any number of threads. Not meant against
// people who look for collisions. Throws c10::Error for what does not fit together.
at::Tensor ArrayDigests(const std::vector<at::Tensor>& arrays, at::Device device);

}  // namespace hypermoe
