// Random numbers that depend on what they are for, not on who draws them or when: every number is a
// pure function of a key and an index. So initial values, dropout and data order are the same at
// every layout, after every resume and in recomputation.
//
// Legend: B rows, N elements of each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/random_key.h"

namespace hypermoe {

// Uniform number in [0, 1), 53 bits: element `index` of the sequence.
double UniformAt(const RandomKey& key, uint64_t index);

// Fills `tensor` (contiguous; float32, float64 or bfloat16) with element i of the sequence at
// position begin + i, computed in float64. Uniform numbers have the same bits on every device,
// normal ones differ by what its logarithm and cosine do. Throws c10::Error for other tensors.
void FillNormal(const at::Tensor& tensor, const RandomKey& key, double std, int64_t begin = 0);
void FillUniform(const at::Tensor& tensor, const RandomKey& key, double low, double high,
                 int64_t begin = 0);

// The same for rows: row b from the beginning of the sequence of key.Derive(row_ids_B[b]).
// row_ids_B: int64, of any shape with B elements, on the device of tensor_BN.
void FillNormalRows(const at::Tensor& tensor_BN, const RandomKey& key, const at::Tensor& row_ids_B,
                    double std);
void FillUniformRows(const at::Tensor& tensor_BN, const RandomKey& key, const at::Tensor& row_ids_B,
                     double low, double high);

}  // namespace hypermoe
