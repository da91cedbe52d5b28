#include "kernels/host_read.h"

#include <ATen/ops/empty.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>

namespace hypermoe {
namespace {

std::atomic<int64_t> reads{0};

}  // namespace

// The point in the current stream after the copy.
class HostRead::Copied {
 public:
  explicit Copied(c10::Device device) : event_(device.type()) {
    event_.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  void Wait() { event_.synchronize(); }

 private:
  c10::Event event_;
};

HostRead::HostRead(const at::Tensor& tensor) : on_host_(tensor.detach()) {
  if (tensor.is_cpu()) return;
  on_host_ =
      at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(tensor.is_cuda()));
  on_host_.copy_(tensor.detach(), /*non_blocking=*/true);
  copied_ = std::make_unique<Copied>(tensor.device());
}

HostRead::~HostRead() = default;
HostRead::HostRead(HostRead&& other) noexcept = default;
HostRead& HostRead::operator=(HostRead&& other) noexcept = default;

const at::Tensor& HostRead::Wait() {
  if (copied_ != nullptr) copied_->Wait();
  copied_ = nullptr;
  if (!counted_) ++reads;
  counted_ = true;
  return on_host_;
}

int64_t HostRead::count() { return reads; }

}  // namespace hypermoe
