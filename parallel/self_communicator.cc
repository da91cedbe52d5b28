#include <cstring>

#include "parallel/communicator.h"

namespace hypermoe {
namespace {

class NothingPending final : public PendingCollective {
 public:
  bool Test() override { return true; }
  void Wait() override {}
};

class SelfCommunicator final : public Communicator {
 public:
  explicit SelfCommunicator(const std::string& name) : Communicator(name, 0, 1) {}

  std::unique_ptr<Communicator> Split(const std::string& name, int color, int /*key*/) override {
    if (color < 0) Fail("Split", "color " + std::to_string(color) + " must not be negative");
    return std::make_unique<SelfCommunicator>(name);
  }

 protected:
  void DoAllReduceSum(const at::Tensor& /*tensor*/) override {}
  void DoAllReduceMax(const at::Tensor& /*tensor*/) override {}
  std::unique_ptr<PendingCollective> DoStartReduction(const at::Tensor& /*tensor*/,
                                                      bool /*scatter*/) override {
    return std::make_unique<NothingPending>();
  }
  void DoAllGatherParts(const at::Tensor& /*flat*/) override {}
  void DoBroadcast(const at::Tensor& /*tensor*/, int /*root*/) override {}

  std::unique_ptr<PendingCollective> DoStartAllToAll(const void* send,
                                                     const std::vector<int64_t>& send_rows,
                                                     void* recv,
                                                     const std::vector<int64_t>& /*recv_rows*/,
                                                     int64_t row_bytes) override {
    // memcpy wants valid pointers even for nothing, and an empty tensor has none.
    const size_t bytes = static_cast<size_t>(send_rows[0] * row_bytes);
    if (bytes > 0) std::memcpy(recv, send, bytes);
    return std::make_unique<NothingPending>();
  }

  std::vector<std::string> DoAllGatherText(const std::string& text) override { return {text}; }
  void DoBarrier() override {}
};

}  // namespace

std::unique_ptr<Communicator> NewSelfCommunicator(const std::string& name) {
  return std::make_unique<SelfCommunicator>(name);
}

}  // namespace hypermoe
