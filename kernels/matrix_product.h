// Matrix products on the CPU, each by whichever of LibTorch's two libraries is faster for it.
//
// For float32 LibTorch's own at::mm always takes MKL. On an AMD EPYC (Zen 4, 2 threads) oneDNN,
// which it carries too, is faster from a certain size on: 128 x 768 by 768 x 3072 at 150 to 190
// GFLOP/s instead of 115 to 120, the same transposed for a weight's gradient at 175 instead of 135
// (2026-11-25); tools/bench_train_step shows the whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hypermoe {

// a [M,K] times b [K,N], plus bias [N] if it is defined: [M,N]. One floating-point dtype; any
// strides. Not differentiable.
at::Tensor MatrixProduct(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

// AddMatrixProduct makes a product of its own, to be added, of at most so many elements. Above,
// MKL, which adds in place, is faster (measured for the gradient of a 50257 x 768 embedding).
constexpr int64_t kLargestSeparateProduct = int64_t{1} << 24;

// sum [M,N] += a [M,K] times b [K,N]. `sum` may have a wider dtype than a and b.
void AddMatrixProduct(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

}  // namespace hypermoe
