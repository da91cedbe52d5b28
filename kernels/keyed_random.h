// Random numbers that depend on what they are for, not on who draws them or when: every number is a
// pure function of a key and an index. So initial values, dropout and data order are the same at
// every layout, after every resume and in recomputation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace hypermoe {

// Names one sequence of random numbers.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t stream = 0;

  // The key of a part of what this key stands for: Derive(step).Derive(layer).Derive("attention").
  RandomKey Derive(uint64_t part) const;
  RandomKey Derive(std::string_view part) const;
};

// Uniform number in [0, 1), 53 bits: element `index` of the sequence.
double UniformAt(const RandomKey& key, uint64_t index);

// Fills `tensor` (dense CPU, float32 or float64) with element i of the sequence at position begin +
// i, computed in float64.
void FillNormal(const at::Tensor& tensor, const RandomKey& key, double std, int64_t begin = 0);
void FillUniform(const at::Tensor& tensor, const RandomKey& key, double low, double high,
                 int64_t begin = 0);

}  // namespace hypermoe
