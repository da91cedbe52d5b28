// Reading a small result of a device on the host, which waits for the device there: in a sparse
// layer with one choice a token the only thing that does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace hypermoe {

// A tensor on its way to the host. The copy starts at construction, on the current stream, so that
// the device can be given more before the host waits for it. A tensor on the CPU is there at once.
class HostRead {
 public:
  explicit HostRead(const at::Tensor& tensor);
  ~HostRead();
  HostRead(HostRead&& other) noexcept;
  HostRead& operator=(HostRead&& other) noexcept;

  // The content, on the CPU. Blocks until the copy is done, but not for what the stream has been
  // given since.
  const at::Tensor& Wait();

  // How many reads this process has waited for, of tensors on the CPU too: what they would cost on
  // a GPU.
  static int64_t count();

 private:
  class Copied;

  at::Tensor on_host_;
  std::unique_ptr<Copied> copied_;  // null: it was there at once
  bool counted_ = false;
};

}  // namespace hypermoe
