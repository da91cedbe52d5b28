// A device queue whose device is the host (or, for tests of what is not its own, another): what it
// is given is done at once, and its steps stand among the calls that recording_nccl records.
#pragma once

#include <cstring>
#include <memory>

#include "parallel/device_queue.h"
#include "tests/support/recording_nccl.h"

namespace hypermoe {

class ImmediateQueue final : public DeviceQueue {
 public:
  explicit ImmediateQueue(c10::Device device = c10::kCPU) : device_(device) {}

  c10::Device device() const override { return device_; }
  CUstream_st* stream() const override { return nullptr; }
  void WaitForCurrentStream() override { recording_nccl::Note("wait_for_current"); }
  std::unique_ptr<DeviceEvent> Record() override {
    recording_nccl::Note("record");
    return std::make_unique<Event>(done_);
  }
  void KeepForStream(const at::Tensor& /*tensor*/) override { recording_nccl::Note("keep"); }
  void Copy(void* to, const void* from, int64_t bytes) override {
    recording_nccl::Note("copy");
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  // What its events say when they are asked.
  void set_done(bool done) { *done_ = done; }

 private:
  class Event final : public DeviceEvent {
   public:
    explicit Event(std::shared_ptr<bool> done) : done_(std::move(done)) {}
    bool Done() override { return *done_; }
    void MakeCurrentStreamWait() override { recording_nccl::Note("current_waits"); }

   private:
    std::shared_ptr<bool> done_;
  };

  c10::Device device_;
  std::shared_ptr<bool> done_ = std::make_shared<bool>(true);
};

}  // namespace hypermoe
