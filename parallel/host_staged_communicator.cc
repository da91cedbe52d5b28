#include "parallel/host_staged_communicator.h"

#include <ATen/ops/empty.h>

#include <utility>

namespace hypermoe {
namespace {

// A tensor and where it is moved from and to; the same if it needs no copy.
struct Staged {
  at::Tensor tensor, host;

  void CopyBack() const {
    if (!host.is_same(tensor)) at::Tensor(tensor).copy_(host);
  }
};

class StagedReduction final : public PendingCollective {
 public:
  StagedReduction(Staged staged, std::unique_ptr<PendingCollective> inner)
      : staged_(std::move(staged)), inner_(std::move(inner)) {}
  bool Test() override {
    if (!done_ && inner_->Test()) Finish();
    return done_;
  }
  void Wait() override {
    if (done_) return;
    inner_->Wait();
    Finish();
  }

 private:
  void Finish() {
    staged_.CopyBack();
    done_ = true;
  }

  Staged staged_;
  std::unique_ptr<PendingCollective> inner_;
  bool done_ = false;
};

class StagedExchange final : public PendingCollective {
 public:
  StagedExchange(at::Tensor received, StartedExchange inner)
      : received_(std::move(received)), inner_(std::move(inner)) {}
  bool Test() override {
    if (!done_ && inner_.pending->Test()) Finish();
    return done_;
  }
  void Wait() override {
    if (done_) return;
    inner_.pending->Wait();
    Finish();
  }

 private:
  void Finish() {
    received_.copy_(inner_.received);
    done_ = true;
  }

  at::Tensor received_;
  StartedExchange inner_;
  bool done_ = false;
};

class HostStagedCommunicator final : public Communicator {
 public:
  HostStagedCommunicator(std::unique_ptr<Communicator> host, at::Device device)
      : Communicator(host->name(), host->rank(), host->size(), device), host_(std::move(host)) {}

  std::unique_ptr<Communicator> Split(const std::string& name, int color, int key) override {
    return NewHostStagedCommunicator(host_->Split(name, color, key), device());
  }
  void CheckTransport() override { host_->CheckTransport(); }

 protected:
  void DoAllReduceSum(const at::Tensor& tensor) override {
    const Staged staged = Stage(tensor);
    host_->AllReduceSum(staged.host);
    staged.CopyBack();
  }
  void DoAllReduceMax(const at::Tensor& tensor) override {
    const Staged staged = Stage(tensor);
    host_->AllReduceMax(staged.host);
    staged.CopyBack();
  }
  std::unique_ptr<PendingCollective> DoStartReduction(const at::Tensor& tensor,
                                                      bool scatter) override {
    Staged staged = Stage(tensor);
    std::unique_ptr<PendingCollective> inner =
        scatter ? host_->StartReduceScatterSum(staged.host) : host_->StartAllReduceSum(staged.host);
    return std::make_unique<StagedReduction>(std::move(staged), std::move(inner));
  }
  void DoAllGatherParts(const at::Tensor& flat) override {
    const Staged staged = Stage(flat);
    host_->AllGatherParts(staged.host);
    staged.CopyBack();
  }
  void DoBroadcast(const at::Tensor& tensor, int root) override {
    const Staged staged = Stage(tensor);
    host_->Broadcast(staged.host, root);
    staged.CopyBack();
  }
  std::unique_ptr<PendingCollective> DoStartAllToAll(const void* send,
                                                     const std::vector<int64_t>& send_rows,
                                                     void* recv,
                                                     const std::vector<int64_t>& recv_rows,
                                                     int64_t row_bytes) override {
    return HandAllToAll(*host_, send, send_rows, recv, recv_rows, row_bytes);
  }
  std::unique_ptr<PendingCollective> DoStartAllToAllRows(const at::Tensor& rows,
                                                         const std::vector<int64_t>& send_rows,
                                                         const at::Tensor& received,
                                                         const std::vector<int64_t>& recv_rows,
                                                         bool equal) override {
    const Staged staged = Stage(rows);
    return std::make_unique<StagedExchange>(
        received, equal ? host_->StartAllToAllEqualRows(staged.host)
                        : host_->StartAllToAllRows(staged.host, send_rows, recv_rows));
  }
  std::vector<std::string> DoAllGatherText(const std::string& text) override {
    return host_->AllGatherText(text);
  }
  void DoBarrier() override { host_->Barrier(); }

 private:
  Staged Stage(const at::Tensor& tensor) const {
    if (tensor.device() != device()) return {tensor, tensor};
    at::Tensor host = at::empty(tensor.sizes(),
                                tensor.options().device(at::kCPU).pinned_memory(!tensor.is_cpu()));
    host.copy_(tensor);
    return {tensor, host};
  }

  std::unique_ptr<Communicator> host_;
};

}  // namespace

std::unique_ptr<Communicator> NewHostStagedCommunicator(std::unique_ptr<Communicator> host,
                                                        at::Device device) {
  return std::make_unique<HostStagedCommunicator>(std::move(host), device);
}

}  // namespace hypermoe
