// The one door to other processes: a group of ranks and the collectives that the trainer uses.
//
// Every collective must be called by every rank of the group, in the same order, with matching
// arguments. Tensors are dense, contiguous, on the CPU or on device(), and of dtype float32,
// float64, int64, bfloat16 or uint8 (reductions: the first three; on a GPU bfloat16 too).
//
// On the CPU each call but those that start something blocks until this rank's part is done. On a
// GPU a collective is ordered as an operator is: after all that the current stream has been given
// before, and before all that it is given next; the host waits for neither.
//
// Failures throw CommError. Not thread-safe, but for CheckTransport.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace hypermoe {

// A collective failed: names the call, the group and rank, and the library's own text. Exit
// code 71.
class CommError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Collective {
  kAllToAll,
  kAllToAllCounts,
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kBarrier
};
constexpr int kNumCollectives = 7;
// "all_to_all", "all_reduce" and so on.
const char* CollectiveName(Collective kind);

// What one kind of collective has cost so far on this rank. `bytes` is the payload handed over for
// other ranks: rows sent to others for all-to-all, the operand's size for reductions, broadcasts
// and gathers; 0 in a group of one. `seconds` is the time this rank's host was kept: of what was
// started its start, tests and wait.
struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;
  double seconds = 0;
};

// One stretch of time that a collective kept this rank, in seconds of the steady clock.
struct CollectiveEvent {
  Collective kind;
  const std::string& group;
  int64_t bytes;
  bool goes_on;  // with what has been started, and counted then
  double begin, end;
};
using CollectiveObserver = std::function<void(const CollectiveEvent&)>;

// A collective that has been started. Until it is done its tensors must be kept, the sent ones not
// be written, and the others neither read nor written. On a GPU "done" means done for what the
// current stream is given after Wait.
class PendingCollective {
 public:
  virtual ~PendingCollective() = default;
  // Goes on with what can be done without waiting; true once it is done. The transport moves data
  // only inside calls such as this one.
  virtual bool Test() = 0;
  // Blocks until it is done; on a GPU the current stream, not the host. Before destruction it must
  // have been called, or Test have returned true: what nobody has seen done keeps its memory for
  // ever.
  virtual void Wait() = 0;
};

// An exchange that has been started. `pending` keeps what is sent and what is received.
struct StartedExchange {
  at::Tensor received;  // as the call that blocks returns it, once the exchange is done
  std::unique_ptr<PendingCollective> pending;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // What the group is called in messages: "world", "expert", "expert_data".
  const std::string& name() const { return name_; }
  // Where tensors may lie beside the CPU; the CPU itself if nowhere else.
  c10::Device device() const { return device_; }

  // Element-wise sum over the group, in place. The same bits on every rank and in every run at the
  // same size. (What NCCL keeps of the promises about bits stands in nccl_communicator.h.)
  void AllReduceSum(const at::Tensor& tensor);
  // Starts the same sum. What has been started may be pending beside more of it and beside other
  // calls of the group; all ranks start it in the same order. Each element is summed in the order
  // of the ranks, so its bits depend neither on how an array is cut into calls nor on whether it
  // is scattered.
  std::unique_ptr<PendingCollective> StartAllReduceSum(const at::Tensor& tensor);
  // Starts a sum of which each rank gets its part of the flat tensor, RowsOfRank(numel, size,
  // rank), in place; the other elements are lost.
  std::unique_ptr<PendingCollective> StartReduceScatterSum(const at::Tensor& flat);
  // The opposite: gives everyone's part of the flat tensor to all, in place.
  void AllGatherParts(const at::Tensor& flat);
  // Element-wise maximum over the group, in place.
  void AllReduceMax(const at::Tensor& tensor);
  // Copies root's tensor over everyone's, in place.
  void Broadcast(const at::Tensor& tensor, int root);
  // Uneven exchange of rows. `rows` is [sum(send_rows), ...]: the first send_rows[0] go to rank 0,
  // the next send_rows[1] to rank 1, and so on. Returns [sum(recv_rows), ...], ordered by source
  // rank. Any count may be zero; row sizes agree on all ranks, and recv_rows[p] is what rank p
  // sends here.
  at::Tensor AllToAllRows(const at::Tensor& rows, const std::vector<int64_t>& send_rows,
                          const std::vector<int64_t>& recv_rows);
  StartedExchange StartAllToAllRows(const at::Tensor& rows, const std::vector<int64_t>& send_rows,
                                    const std::vector<int64_t>& recv_rows);
  // The same exchange where every rank sends every rank equally many rows: rows.size(0) is a
  // multiple of size() and the same on all ranks. From its own counts alone a rank cannot know that
  // the others' are equal too, so the caller says it; what it buys is the transport's own call.
  at::Tensor AllToAllEqualRows(const at::Tensor& rows);
  StartedExchange StartAllToAllEqualRows(const at::Tensor& rows);
  // Equal exchange of integers: counts.size() is a multiple of size(), the p-th part goes to rank
  // p; the result's p-th part came from rank p.
  std::vector<int64_t> AllToAllCounts(const std::vector<int64_t>& counts);
  // The result as a tensor on the CPU.
  StartedExchange StartAllToAllCounts(const std::vector<int64_t>& counts);
  // Everyone's text, by rank; lengths may differ. For messages and handshakes, not for data.
  std::vector<std::string> AllGatherText(const std::string& text);
  // Waits until all ranks' hosts have come here.
  void Barrier();

  // New group of the ranks that gave the same color, ordered by key. Collective over this group.
  virtual std::unique_ptr<Communicator> Split(const std::string& name, int color, int key) = 0;

  // Throws CommError if the transport has failed in the background: where a collective goes on
  // after its call has returned, no call may ever tell. Local, and allowed on another thread (a
  // watchdog) while this group's own thread is inside a call. Transports without a background never
  // throw.
  virtual void CheckTransport() {}

  const Traffic& traffic(Collective kind) const { return traffic_[static_cast<int>(kind)]; }
  // Called after every collective of this group, and every test of and wait for one that has been
  // started (`goes_on`); empty: nobody.
  void set_observer(CollectiveObserver observer) { observer_ = std::move(observer); }

 protected:
  Communicator(std::string name, int rank, int size, c10::Device device = c10::kCPU)
      : name_(std::move(name)), rank_(rank), size_(size), device_(device) {}

  // The transport. Arguments have been checked; called also in a group of one.
  virtual void DoAllReduceSum(const at::Tensor& tensor) = 0;
  virtual void DoAllReduceMax(const at::Tensor& tensor) = 0;
  virtual std::unique_ptr<PendingCollective> DoStartReduction(const at::Tensor& tensor,
                                                              bool scatter) = 0;
  virtual void DoAllGatherParts(const at::Tensor& flat) = 0;
  virtual void DoBroadcast(const at::Tensor& tensor, int root) = 0;
  // In the host's memory, which the caller keeps.
  virtual std::unique_ptr<PendingCollective> DoStartAllToAll(const void* send,
                                                             const std::vector<int64_t>& send_rows,
                                                             void* recv,
                                                             const std::vector<int64_t>& recv_rows,
                                                             int64_t row_bytes) = 0;
  // From rows into received, wherever they lie; the caller keeps them. `equal`: AllToAllEqualRows.
  // Unless overridden, DoStartAllToAll.
  virtual std::unique_ptr<PendingCollective> DoStartAllToAllRows(
      const at::Tensor& rows, const std::vector<int64_t>& send_rows, const at::Tensor& received,
      const std::vector<int64_t>& recv_rows, bool equal);
  virtual std::vector<std::string> DoAllGatherText(const std::string& text) = 0;
  virtual void DoBarrier() = 0;
  // Whether reductions take bfloat16 on `device`, which is the CPU or device().
  virtual bool ReducesBFloat16(c10::Device /*device*/) const { return false; }

  // For a communicator that hands exchanges of host memory to another of the same group.
  static std::unique_ptr<PendingCollective> HandAllToAll(Communicator& to, const void* send,
                                                         const std::vector<int64_t>& send_rows,
                                                         void* recv,
                                                         const std::vector<int64_t>& recv_rows,
                                                         int64_t row_bytes) {
    return to.DoStartAllToAll(send, send_rows, recv, recv_rows, row_bytes);
  }
  // Elements of one row of a tensor with at least one axis.
  static int64_t RowNumel(const at::Tensor& rows);

  // Throws CommError with the call, this group and rank, and `what`.
  [[noreturn]] void Fail(const std::string& call, const std::string& what) const;

 private:
  class Metered;
  class MeteredPending;
  struct Exchange;

  std::unique_ptr<PendingCollective> StartReduction(const char* call, const at::Tensor& tensor,
                                                    bool scatter);
  // The exchanges, checked and ready to be run or started.
  Exchange CheckedExchange(const char* call, const at::Tensor& rows,
                           const std::vector<int64_t>& send_rows,
                           const std::vector<int64_t>& recv_rows, bool equal) const;
  Exchange UnevenExchange(const char* call, const at::Tensor& rows,
                          const std::vector<int64_t>& send_rows,
                          const std::vector<int64_t>& recv_rows) const;
  Exchange EqualExchange(const char* call, const at::Tensor& rows) const;
  Exchange CountExchange(const char* call, const std::vector<int64_t>& counts) const;
  at::Tensor Run(const Exchange& exchange);
  StartedExchange Start(const Exchange& exchange);
  std::unique_ptr<PendingCollective> Issue(const Exchange& exchange);
  int64_t OperandBytes(const at::Tensor& tensor) const;
  void CheckTensor(const char* call, const at::Tensor& tensor, bool reduction) const;
  int64_t CheckRowCounts(const char* call, const char* argument,
                         const std::vector<int64_t>& rows) const;

  std::string name_;
  int rank_;
  int size_;
  c10::Device device_;
  std::array<Traffic, kNumCollectives> traffic_;
  CollectiveObserver observer_;
};

// A group of this process alone: the same code path as a large group, without MPI.
std::unique_ptr<Communicator> NewSelfCommunicator(const std::string& name);

// The group of all ranks of MPI_COMM_WORLD. MPI must have been initialised and must outlive the
// result (and all that is split from it). Its MPI errors become CommError.
std::unique_ptr<Communicator> NewMpiWorldCommunicator();

}  // namespace hypermoe
