// AdamW (Loshchilov and Hutter, arXiv:1711.05101) over flat buffers, whole or sharded (ZeRO-1,
// arXiv:1910.02054), PyTorch's order of operations:
//   value *= 1 - lr * weight_decay        (parameters marked for decay only)
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   value -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon),   t = 1, 2, ...
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/adamw_update.h"
#include "parallel/gradient_bucket.h"

namespace hypermoe {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

class AdamW {
 public:
  enum class Moment { kFirst, kSecond };

  // `buffers` and `buckets` must outlive this. Moments start at zero. `sharded`: this rank keeps
  // the moments of, and updates, its own parts of the buckets only.
  AdamW(const std::vector<FlatBuffer>& buffers, const std::vector<GradientBucket>& buckets,
        AdamWOptions options, bool sharded);

  // One update from the gradients in the buffers; sharded, only those of own parts are looked at,
  // and the new values are exchanged: collective over the buckets' groups. Otherwise local. The
  // bits of the values are the same either way.
  //
  // Two tensors of one element on the buffers' device, which the host does not wait for:
  // `gradient_scale` is what each gradient is multiplied with (undefined: 1); `skip`, if it is not
  // 0, lets values and moments keep every bit (undefined: 0) and has to be the same on all ranks.
  // steps() goes up either way: who learns that the update was skipped takes it back.
  void Step(double learning_rate, const at::Tensor& gradient_scale = {},
            const at::Tensor& skip = {});
  void TakeBackStep() { --steps_; }

  // The state that a checkpoint keeps: updates made so far, and moments by buffer index.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  bool sharded() const { return sharded_; }
  // Elements whose two moments are kept on this rank.
  int64_t kept_elements() const;
  // One moment of all trained elements of a buffer. Sharded, a copy that is put together:
  // collective over the groups of the buffer's buckets.
  at::Tensor Moments(size_t buffer, Moment moment) const;
  // The same, sharded, into `whole`, as large as the buffer's gradients.
  void GatherMoments(size_t buffer, Moment moment, const at::Tensor& whole) const;
  // Sets the elements from `offset` on of a buffer's moment to `values`; sharded, those that are
  // kept here. Local.
  void SetMoments(size_t buffer, Moment moment, int64_t offset, const at::Tensor& values);

 private:
  // Elements whose moments are kept here, from `stored` on in the buffer's arrays.
  struct Piece {
    size_t buffer;
    RowRange elements;
    int64_t stored;
  };
  const std::vector<at::Tensor>& Arrays(Moment moment) const {
    return moment == Moment::kFirst ? first_ : second_;
  }
  // The arrays of a piece, with and without decay.
  void AppendPieces(const Piece& piece, double learning_rate,
                    std::vector<AdamWPiece>& pieces) const;

  const std::vector<FlatBuffer>& buffers_;
  const std::vector<GradientBucket>& buckets_;
  AdamWOptions options_;
  bool sharded_;
  int64_t steps_ = 0;
  std::vector<Piece> pieces_;
  std::vector<at::Tensor> first_, second_;  // by buffer
};

}  // namespace hypermoe
