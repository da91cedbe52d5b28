// AdamW (Loshchilov and Hutter, arXiv:1711.05101) over flat buffers, whole or sharded (ZeRO-1,
// arXiv:1910.02054), PyTorch's order of operations:
//   value *= 1 - lr * weight_decay        (parameters marked for decay only)
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   value -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon),   t = 1, 2, ...
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/adamw_update.h"
#include "parallel/gradient_bucket.h"
#include "parallel/optimizer.h"

namespace hypermoe {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

class AdamW : public Optimizer {
 public:
  // Kinds of state: the two moments of each element. A buffer's array is laid out as its gradients.
  enum Moment : size_t { kFirst, kSecond };
  static constexpr const char* kKinds[] = {"first_moment", "second_moment"};

  // `buffers` and `buckets` must outlive this. Moments start at zero. `sharded`: this rank keeps
  // the moments of, and updates, its own parts of the buckets only.
  AdamW(const std::vector<FlatBuffer>& buffers, const std::vector<GradientBucket>& buckets,
        AdamWOptions options, bool sharded);

  bool sharded() const override { return sharded_; }
  int64_t kept_elements() const override;
  at::Tensor State(size_t buffer, size_t kind) const override;
  void GatherState(size_t buffer, size_t kind, const at::Tensor& whole) const override;
  void SetState(size_t buffer, size_t kind, int64_t offset, const at::Tensor& values) override;

 private:
  // Elements whose moments are kept here, from `stored` on in the buffer's arrays.
  struct Piece {
    size_t buffer;
    RowRange elements;
    int64_t stored;
  };
  void Update(double learning_rate, const at::Tensor& gradient_scale,
              const at::Tensor& skip) override;
  std::optional<std::vector<int64_t>> ShapeOf(const Parameter& parameter,
                                              size_t kind) const override;
  // The arrays of a piece, with and without decay.
  void AppendPieces(const Piece& piece, double learning_rate,
                    std::vector<AdamWPiece>& pieces) const;

  const std::vector<GradientBucket>& buckets_;
  AdamWOptions options_;
  bool sharded_;
  std::vector<Piece> pieces_;
  std::array<std::vector<at::Tensor>, 2> moments_;  // by kind, by buffer
};

}  // namespace hypermoe
