// What training, checkpoints and checks need of an optimizer: a step, and its state as named
// tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/flat_buffer.h"

namespace hypermoe {

// A parameter that is not frozen has one tensor of state, or none, of each of a few kinds; experts
// one each. Tensors of one kind of all parameters of a buffer lie in one array, in the order of the
// buffer.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // One update from the gradients in the buffers; sharded, only those of own parts are looked at,
  // and the new values are exchanged: collective over the buckets' groups. Otherwise local. The
  // bits of the values are the same either way.
  //
  // Two tensors of one element on the buffers' device, which the host does not wait for:
  // `gradient_scale` is what each gradient is multiplied with (undefined: 1); `skip`, if it is not
  // 0, lets values and state keep every bit (undefined: 0) and has to be the same on all ranks.
  // steps() goes up either way: who learns that the update was skipped takes it back.
  void Step(double learning_rate, const at::Tensor& gradient_scale = {},
            const at::Tensor& skip = {});
  void TakeBackStep() { --steps_; }
  // Updates made so far.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // Names of the kinds ("first_moment"), which are otherwise called by their index.
  const std::vector<std::string>& kinds() const { return kinds_; }
  // The shape in which a parameter's state of a kind is kept, [local experts, ...] for experts;
  // nothing if it has none.
  std::optional<std::vector<int64_t>> StateShape(const Parameter& parameter, size_t kind) const;
  // Whether the state is shared out over the ranks that hold the same parameters.
  virtual bool sharded() const { return false; }
  // Elements of state, of all kinds, that are kept on this rank.
  virtual int64_t kept_elements() const = 0;
  // The array of one kind of state of a buffer. Sharded, a copy that is put together: collective
  // over the groups of the buffer's buckets.
  virtual at::Tensor State(size_t buffer, size_t kind) const = 0;
  // The same into `whole`, of its size.
  virtual void GatherState(size_t buffer, size_t kind, const at::Tensor& whole) const;
  // Sets the elements from `offset` on of the array to `values`; sharded, those that are kept here.
  // Local.
  virtual void SetState(size_t buffer, size_t kind, int64_t offset, const at::Tensor& values) = 0;
  // An array like that of State (it may be longer) as tensors under the names of the parameters,
  // sharing memory with it; those that are named transposed are not contiguous.
  std::vector<NamedTensor> StateViews(size_t buffer, size_t kind, const at::Tensor& array) const;

 protected:
  // `buffers` must outlive this.
  Optimizer(const std::vector<FlatBuffer>& buffers, std::vector<std::string> kinds)
      : buffers_(buffers), kinds_(std::move(kinds)) {}

  const std::vector<FlatBuffer>& buffers() const { return buffers_; }

 private:
  // Step of update steps(), which counts from 1.
  virtual void Update(double learning_rate, const at::Tensor& gradient_scale,
                      const at::Tensor& skip) = 0;
  // StateShape of a parameter that is not frozen.
  virtual std::optional<std::vector<int64_t>> ShapeOf(const Parameter& parameter,
                                                      size_t kind) const = 0;

  const std::vector<FlatBuffer>& buffers_;
  const std::vector<std::string> kinds_;
  int64_t steps_ = 0;
};

}  // namespace hypermoe
