// Linear layers with few rows and a matrix far larger than a cache, as the generation of
// HyperExperts is: 8 rows by [49152, 128]. What they take is the time to read the matrix, and the
// backward pass to read it again and to add its gradient; so a slice of it is read once a pass,
// and everything is done with it while it is in the cache.
//
// tools/bench_small_gemm measures both.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// Whether the functions below are to be used: float32 without gaps, 1 to 128 rows, a large matrix,
// and a processor and sizes that SmallGemm can work with (small_gemm.h).
bool IsFewRowsLinear(const at::Tensor& x_RD, const at::Tensor& weight_VD);

// x weight^T, plus bias [V] if it is defined: [R,V]. Not differentiable.
at::Tensor FewRowsLinear(const at::Tensor& x_RD, const at::Tensor& weight_VD,
                         const at::Tensor& bias_V);

// From the gradient of the result: returns that of x if it is needed, else an undefined tensor, and
// adds that of the weight to grad_weight if it is defined. All without gaps in memory. The same
// bits for any number of threads.
at::Tensor FewRowsLinearBackward(const at::Tensor& grad_RV, const at::Tensor& x_RD,
                                 const at::Tensor& weight_VD, bool needs_grad_x,
                                 const at::Tensor& grad_weight_VD);

}  // namespace hypermoe
