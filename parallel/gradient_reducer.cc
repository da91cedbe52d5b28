#include "parallel/gradient_reducer.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace hypermoe {

class GradientReducer::Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientReducer* reducer, size_t buffer, size_t parameter)
      : reducer_(reducer), buffer_(buffer), parameter_(parameter) {}
  void operator()(const at::Tensor& /*leaf*/) override {
    reducer_->ParameterReady(buffer_, parameter_);
  }

 private:
  GradientReducer* reducer_;
  size_t buffer_, parameter_;
};

GradientReducer::GradientReducer(const std::vector<FlatBuffer>& buffers,
                                 const std::vector<GradientBucket>& buckets, bool scatter)
    : buffers_(buffers),
      buckets_(buckets),
      scatter_(scatter),
      buckets_of_parameter_(buffers.size()),
      parameters_of_bucket_(buckets.size(), 0) {
  for (size_t b = 0; b < buffers_.size(); ++b) {
    const FlatBuffer& buffer = buffers_[b];
    buckets_of_parameter_[b].resize(buffer.parameters().size());
    for (size_t p = 0; p < buffer.parameters().size(); ++p) {
      if (buffer.parameters()[p]->frozen) continue;
      const at::Tensor& leaf = buffer.parameters()[p]->value;
      const int64_t begin = buffer.offset(p), end = begin + leaf.numel();
      for (size_t i = 0; i < buckets_.size(); ++i) {
        const RowRange elements = buckets_[i].elements;
        if (buckets_[i].buffer != b || begin >= elements.end || end <= elements.begin) continue;
        buckets_of_parameter_[b][p].push_back(i);
        ++parameters_of_bucket_[i];
      }
      torch::autograd::impl::set_post_acc_grad_hooks(leaf, std::make_unique<Hook>(this, b, p));
    }
  }
}

GradientReducer::~GradientReducer() {
  for (const FlatBuffer& buffer : buffers_) {
    for (const Parameter* parameter : buffer.parameters()) {
      if (!parameter->frozen)
        torch::autograd::impl::set_post_acc_grad_hooks(parameter->value, nullptr);
    }
  }
}

void GradientReducer::Arm() {
  armed_ = true;
  next_ = 0;
  missing_ = parameters_of_bucket_;
  added_.clear();
  for (const auto& parameters : buckets_of_parameter_)
    added_.emplace_back(parameters.size(), false);
}

void GradientReducer::ParameterReady(size_t buffer, size_t parameter) {
  if (!armed_ || added_[buffer][parameter]) return;
  added_[buffer][parameter] = true;
  for (const size_t bucket : buckets_of_parameter_[buffer][parameter]) --missing_[bucket];
  StartReadyBuckets();
}

void GradientReducer::StartReadyBuckets() {
  // Every pending one is tested, for that is when its data moves.
  for (const auto& reduction : pending_) reduction->Test();
  while (!pending_.empty() && pending_.front()->Test()) {
    pending_.front()->Wait();
    pending_.pop_front();
  }
  while (next_ < buckets_.size() && missing_[next_] == 0 &&
         (pending_.size() < kMaxPendingReductions || !BoundsMemory(next_))) {
    StartNext();
  }
}

// Not on a GPU, where scratch memory is not the host's and ranks must start alike whatever is done
// already: one stream orders the collectives of all groups.
bool GradientReducer::BoundsMemory(size_t bucket) const {
  return buffers_[buckets_[bucket].buffer].gradients().is_cpu();
}

void GradientReducer::StartNext() {
  const GradientBucket& bucket = buckets_[next_++];
  const at::Tensor gradients = bucket.In(buffers_[bucket.buffer].gradients());
  pending_.push_back(scatter_ ? bucket.group->StartReduceScatterSum(gradients)
                              : bucket.group->StartAllReduceSum(gradients));
}

void GradientReducer::Finish() {
  if (!armed_) next_ = 0;
  armed_ = false;
  started_early_ = next_;
  // All ranks go through the buckets in one order, and those that share a group share its buckets:
  // waiting for the oldest cannot close a circle.
  while (next_ < buckets_.size() || !pending_.empty()) {
    while (next_ < buckets_.size() && pending_.size() < kMaxPendingReductions) StartNext();
    pending_.front()->Wait();
    pending_.pop_front();
  }
}

}  // namespace hypermoe
