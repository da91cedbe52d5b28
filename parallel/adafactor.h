// Adafactor (Shazeer and Stern, arXiv:1804.04235) without momentum and weight decay, as Mesh
// TensorFlow and T5X train T5 and Switch Transformer. In update t = 1, 2, ... of a tensor, with
// beta = 1 - t^-decay_rate and s = g^2 + epsilon1:
//   a matrix with at least min_dim_size_to_factor rows and columns
//     R = beta R + (1 - beta) mean of s over the columns, one for each row
//     C = beta C + (1 - beta) mean of s over the rows, one for each column
//     u = g / sqrt(R C / mean(R))
//   any other tensor
//     v = beta v + (1 - beta) s,   u = g / sqrt(v)
//   u /= max(1, RMS(u) / clipping_threshold)
//   value -= lr * max(RMS(value), epsilon2) * u
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/optimizer.h"

namespace hypermoe {

struct AdafactorOptions {
  double decay_rate = 0.8;
  double epsilon1 = 1e-30;
  double epsilon2 = 1e-3;
  double clipping_threshold = 1.0;  // 0: no clipping
  int64_t min_dim_size_to_factor = 128;
  bool multiply_by_parameter_scale = true;  // false: value -= lr * u
};

// Whether a tensor of this shape, an expert's own, keeps R and C.
bool IsFactored(at::IntArrayRef shape, int64_t min_dim_size_to_factor);

// Every rank updates all that it holds, from whole gradients. Each tensor under a name of its own,
// so each expert's, is one for itself. Deterministic, for any number of threads.
class Adafactor : public Optimizer {
 public:
  // Kinds of state: R, C (of the matrix as it is named, Parameter::named_transposed) and v.
  enum Kind : size_t { kRows, kColumns, kFull };

  // `buffers` must outlive this. State starts at zero.
  Adafactor(const std::vector<FlatBuffer>& buffers, AdafactorOptions options);

  int64_t kept_elements() const override;
  at::Tensor State(size_t buffer, size_t kind) const override { return arrays_[kind][buffer]; }
  void SetState(size_t buffer, size_t kind, int64_t offset, const at::Tensor& values) override;

 private:
  // What all tensors of an update have in common.
  struct Factors {
    double learning_rate = 0, beta = 0;
    at::Tensor gradient_scale;  // of the values' dtype, or undefined
    at::Tensor skip;            // bool, or undefined
  };
  // A parameter with experts along its first axis, 1 of a parameter without.
  struct Stack {
    at::Tensor value, gradient;
    std::vector<at::Tensor> state;  // by kind; undefined: none
    int64_t columns_axis;           // of the matrix as it is named: -1 or -2
  };

  void Update(double learning_rate, const at::Tensor& gradient_scale,
              const at::Tensor& skip) override;
  std::optional<std::vector<int64_t>> ShapeOf(const Parameter& parameter,
                                              size_t kind) const override;
  // The array of a kind for the stacks from `first_stack` on, those of `buffer`.
  void AddArray(const FlatBuffer& buffer, size_t kind, size_t first_stack);
  void UpdateStack(const Stack& stack, const Factors& factors) const;
  // Brings the state up to date and returns u, before it is clipped.
  at::Tensor Normalized(const Stack& stack, const Factors& factors) const;
  // What u is multiplied with before it is added: float64 [experts].
  at::Tensor StepSizes(const Stack& stack, const at::Tensor& u, double learning_rate) const;

  AdafactorOptions options_;
  std::vector<std::vector<at::Tensor>> arrays_;  // by kind, by buffer
  std::vector<Stack> stacks_;
};

}  // namespace hypermoe
