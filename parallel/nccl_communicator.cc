#include "parallel/nccl_communicator.h"

#include <ATen/ops/zeros.h>
#include <nccl.h>

#include <cstddef>
#include <cstring>
#include <thread>
#include <utility>

#include "parallel/device_queue.h"
#include "parallel/nccl_group.h"
#include "parallel/partition.h"

namespace hypermoe {
namespace {

ncclDataType_t TypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kLong:
      return ncclInt64;
    case at::kBFloat16:
      return ncclBfloat16;
    default:
      return ncclUint8;
  }
}

class NcclPending final : public PendingCollective {
 public:
  // `end` null: nothing was to be done. `tensor`: kept until it is done; undefined: the caller's.
  NcclPending(std::shared_ptr<NcclGroup> group, std::unique_ptr<DeviceEvent> end,
              at::Tensor tensor = {})
      : group_(std::move(group)), end_(std::move(end)), tensor_(std::move(tensor)) {}
  ~NcclPending() override {
    if (end_ != nullptr) group_->Abandon();
  }

  bool Test() override {
    if (end_ == nullptr) return true;
    group_->Check();
    if (!end_->Done()) return false;
    end_ = nullptr;
    return true;
  }

  void Wait() override {
    if (end_ == nullptr) return;
    group_->Check();
    end_->MakeCurrentStreamWait();
    end_ = nullptr;
  }

 private:
  std::shared_ptr<NcclGroup> group_;
  std::unique_ptr<DeviceEvent> end_;  // null: done
  at::Tensor tensor_;
};

// 2.28.9
std::string VersionText(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

// Different versions may hang or crash when they meet. The same on all ranks.
void CheckVersions(Communicator& host) {
  int version = 0;
  const ncclResult_t result = ncclGetVersion(&version);
  const std::vector<std::string> versions = host.AllGatherText(
      result == ncclSuccess ? VersionText(version)
                            : std::string("unknown: ") + ncclGetErrorString(result));
  for (int rank = 1; rank < host.size(); ++rank) {
    if (versions[rank] == versions[0]) continue;
    throw CommError("NCCL in group '" + host.name() + "' is " + versions[0] + " on rank 0 but " +
                    versions[rank] + " on rank " + std::to_string(rank) +
                    ": install the same libnccl.so.2 everywhere");
  }
}

// Rank 0's, on all ranks; where it fails there, it fails everywhere.
ncclUniqueId SharedId(Communicator& host) {
  ncclUniqueId id{};
  const at::Tensor message = at::zeros({1 + static_cast<int64_t>(sizeof(id))}, at::kByte);
  uint8_t* bytes = message.mutable_data_ptr<uint8_t>();
  if (host.rank() == 0) {
    bytes[0] = static_cast<uint8_t>(ncclGetUniqueId(&id));
    std::memcpy(bytes + 1, &id, sizeof(id));
  }
  host.Broadcast(message, /*root=*/0);
  if (bytes[0] != ncclSuccess) {
    throw CommError("ncclGetUniqueId on rank 0 of group '" + host.name() +
                    "': " + ncclGetErrorString(static_cast<ncclResult_t>(bytes[0])));
  }
  std::memcpy(&id, bytes + 1, sizeof(id));
  return id;
}

class NcclCommunicator final : public Communicator {
 public:
  // `create` as NcclGroup's.
  template <typename Create>
  NcclCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<DeviceQueue> queue,
                   const char* call, const Create& create)
      : Communicator(host->name(), host->rank(), host->size(), queue->device()),
        host_(std::move(host)),
        queue_(std::move(queue)) {
    Guarded(call, [&] { group_ = std::make_shared<NcclGroup>(name(), create); });
  }

  std::unique_ptr<Communicator> Split(const std::string& name, int color, int key) override {
    std::unique_ptr<Communicator> part = host_->Split(name, color, key);
    // NCCL wants nothing under way meanwhile.
    const std::unique_ptr<DeviceEvent> all = queue_->Record();
    while (!all->Done()) {
      CheckTransport();
      std::this_thread::yield();
    }
    return std::make_unique<NcclCommunicator>(
        std::move(part), queue_, "ncclCommSplit", [&](ncclComm_t* comm, ncclConfig_t* config) {
          ncclResult_t result = ncclSuccess;
          group_->Issue("ncclCommSplit", [&](ncclComm_t whole) {
            return result = ncclCommSplit(whole, color, key, comm, config);
          });
          return result;
        });
  }

  void CheckTransport() override {
    Guarded("CheckTransport", [&] { group_->CheckUnlessBusy(); });
  }

 protected:
  void DoAllReduceSum(const at::Tensor& tensor) override {
    if (!IsQueued(tensor)) return host_->AllReduceSum(tensor);
    if (tensor.numel() > 0) IssueAllReduce(tensor, ncclSum)->MakeCurrentStreamWait();
  }

  void DoAllReduceMax(const at::Tensor& tensor) override {
    if (!IsQueued(tensor)) return host_->AllReduceMax(tensor);
    if (tensor.numel() > 0) IssueAllReduce(tensor, ncclMax)->MakeCurrentStreamWait();
  }

  std::unique_ptr<PendingCollective> DoStartReduction(const at::Tensor& tensor,
                                                      bool scatter) override {
    if (!IsQueued(tensor)) {
      return scatter ? host_->StartReduceScatterSum(tensor) : host_->StartAllReduceSum(tensor);
    }
    std::unique_ptr<DeviceEvent> end;
    if (tensor.numel() > 0) {
      // The reduction holds its tensor until someone waits; nobody does after an exception.
      queue_->KeepForStream(tensor);
      end = scatter ? IssueReduceScatter(tensor) : IssueAllReduce(tensor, ncclSum);
    }
    return std::make_unique<NcclPending>(group_, std::move(end), tensor);
  }

  void DoAllGatherParts(const at::Tensor& flat) override {
    if (!IsQueued(flat)) return host_->AllGatherParts(flat);
    if (flat.numel() == 0) return;
    const Parts parts = PartsOf(flat);
    const auto gather = [&](ncclComm_t comm) {
      return ncclAllGather(parts.Begin(rank()), parts.Begin(0), parts.range(0).size(), parts.type,
                           comm, queue_->stream());
    };
    const auto broadcast = [&](void* part, size_t numel, int root, ncclComm_t comm) {
      return ncclBroadcast(part, part, numel, parts.type, root, comm, queue_->stream());
    };
    const auto end = parts.equal ? Issue("ncclAllGather", gather)
                                 : Issue("grouped ncclBroadcast", [&](ncclComm_t comm) {
                                     return parts.ForEach(broadcast, comm);
                                   });
    end->MakeCurrentStreamWait();
  }

  void DoBroadcast(const at::Tensor& tensor, int root) override {
    if (!IsQueued(tensor)) return host_->Broadcast(tensor, root);
    if (tensor.numel() == 0) return;
    void* data = tensor.mutable_data_ptr();
    Issue("ncclBroadcast", [&](ncclComm_t comm) {
      return ncclBroadcast(data, data, tensor.numel(), TypeOf(tensor), root, comm,
                           queue_->stream());
    })->MakeCurrentStreamWait();
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
    if (!IsQueued(rows)) {
      return Communicator::DoStartAllToAllRows(rows, send_rows, received, recv_rows, equal);
    }
    return std::make_unique<NcclPending>(
        group_, equal ? ExchangeEqual(rows, received, send_rows[rank()] * RowNumel(rows))
                      : ExchangeUneven(rows, send_rows, received, recv_rows));
  }

  std::vector<std::string> DoAllGatherText(const std::string& text) override {
    return host_->AllGatherText(text);
  }
  void DoBarrier() override { host_->Barrier(); }
  bool ReducesBFloat16(c10::Device device) const override { return device == queue_->device(); }

 private:
  // The parts of a flat tensor by rank.
  struct Parts {
    std::byte* data;
    int64_t numel, element;
    int size;
    ncclDataType_t type;
    bool equal;

    RowRange range(int rank) const { return RowsOfRank(numel, size, rank); }
    void* Begin(int rank) const { return data + range(rank).begin * element; }
    // call(part, numel, rank, comm) for the parts that are not empty, as one.
    template <typename Call>
    ncclResult_t ForEach(const Call& call, ncclComm_t comm) const {
      return NcclGrouped([&] {
        for (int p = 0; p < size; ++p) {
          if (range(p).size() == 0) continue;
          const ncclResult_t result = call(Begin(p), range(p).size(), p, comm);
          if (result != ncclSuccess) return result;
        }
        return ncclSuccess;
      });
    }
  };
  Parts PartsOf(const at::Tensor& flat) const {
    return {static_cast<std::byte*>(flat.mutable_data_ptr()),
            flat.numel(),
            static_cast<int64_t>(flat.element_size()),
            size(),
            TypeOf(flat),
            flat.numel() % size() == 0};
  }

  bool IsQueued(const at::Tensor& tensor) const { return tensor.device() == queue_->device(); }

  template <typename Action>
  void Guarded(const char* call, const Action& action) const {
    try {
      action();
    } catch (const CommError& error) {
      Fail(call, error.what());
    }
  }

  // Between what the current stream has been given so far and the event it returns.
  //
  // A tensor that the caller frees once the current stream waits for the event goes back to the
  // streams it was used on before, so it needs no KeepForStream.
  template <typename Call>
  std::unique_ptr<DeviceEvent> Issue(const char* call_name, const Call& call) {
    queue_->WaitForCurrentStream();
    Guarded(call_name, [&] { group_->Issue(call_name, call); });
    return queue_->Record();
  }

  std::unique_ptr<DeviceEvent> IssueAllReduce(const at::Tensor& tensor, ncclRedOp_t op) {
    void* data = tensor.mutable_data_ptr();
    return Issue("ncclAllReduce", [&](ncclComm_t comm) {
      return ncclAllReduce(data, data, tensor.numel(), TypeOf(tensor), op, comm, queue_->stream());
    });
  }

  std::unique_ptr<DeviceEvent> IssueReduceScatter(const at::Tensor& flat) {
    const Parts parts = PartsOf(flat);
    if (parts.equal) {
      return Issue("ncclReduceScatter", [&](ncclComm_t comm) {
        return ncclReduceScatter(parts.Begin(0), parts.Begin(rank()), parts.range(0).size(),
                                 parts.type, ncclSum, comm, queue_->stream());
      });
    }
    const auto reduce = [&](void* part, size_t numel, int root, ncclComm_t comm) {
      return ncclReduce(part, part, numel, parts.type, ncclSum, root, comm, queue_->stream());
    };
    return Issue("grouped ncclReduce",
                 [&](ncclComm_t comm) { return parts.ForEach(reduce, comm); });
  }

  // `part`: elements for each rank.
  std::unique_ptr<DeviceEvent> ExchangeEqual(const at::Tensor& rows, const at::Tensor& received,
                                             int64_t part) {
    if (part == 0) return nullptr;
    return Issue("ncclAlltoAll", [&](ncclComm_t comm) {
      return ncclAlltoAll(rows.const_data_ptr(), received.mutable_data_ptr(), part, TypeOf(rows),
                          comm, queue_->stream());
    });
  }

  std::unique_ptr<DeviceEvent> ExchangeUneven(const at::Tensor& rows,
                                              const std::vector<int64_t>& send_rows,
                                              const at::Tensor& received,
                                              const std::vector<int64_t>& recv_rows) {
    const int64_t row_numel = RowNumel(rows), element = static_cast<int64_t>(rows.element_size());
    const auto* source = static_cast<const std::byte*>(rows.const_data_ptr());
    auto* target = static_cast<std::byte*>(received.mutable_data_ptr());
    const std::byte* own_source = nullptr;
    std::byte* own_target = nullptr;
    const auto messages = [&](ncclComm_t comm) {
      ncclResult_t result = ncclSuccess;
      for (int p = 0; p < size() && result == ncclSuccess; ++p) {
        const int64_t out = send_rows[p] * row_numel, in = recv_rows[p] * row_numel;
        if (p == rank()) {
          own_source = source;
          own_target = target;
        } else {
          if (out > 0) {
            result = ncclSend(source, out, TypeOf(rows), p, comm, queue_->stream());
          }
          if (in > 0 && result == ncclSuccess) {
            result = ncclRecv(target, in, TypeOf(rows), p, comm, queue_->stream());
          }
        }
        source += out * element;
        target += in * element;
      }
      return result;
    };
    std::unique_ptr<DeviceEvent> end = Issue("grouped ncclSend and ncclRecv", [&](ncclComm_t comm) {
      return NcclGrouped([&] { return messages(comm); });
    });
    // On the current stream, so beside the messages.
    const int64_t own_bytes = send_rows[rank()] * row_numel * element;
    if (own_bytes > 0) queue_->Copy(own_target, own_source, own_bytes);
    return end;
  }

  std::unique_ptr<Communicator> host_;
  std::shared_ptr<DeviceQueue> queue_;
  std::shared_ptr<NcclGroup> group_;
};

}  // namespace

std::unique_ptr<Communicator> NewNcclCommunicator(std::unique_ptr<Communicator> host,
                                                  std::shared_ptr<DeviceQueue> queue) {
  CheckVersions(*host);
  const ncclUniqueId id = SharedId(*host);
  const int rank = host->rank(), size = host->size();
  return std::make_unique<NcclCommunicator>(
      std::move(host), std::move(queue), "ncclCommInitRankConfig",
      [&](ncclComm_t* comm, ncclConfig_t* config) {
        return ncclCommInitRankConfig(comm, size, id, rank, config);
      });
}

}  // namespace hypermoe
