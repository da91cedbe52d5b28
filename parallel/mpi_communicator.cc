#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "parallel/communicator.h"
#include "parallel/partition.h"

namespace hypermoe {
namespace {

// Below the limit of MPI's int counts by far; larger messages gain nothing (measured, 2 ranks of
// one machine: 8 to 11 GB/s with messages from 1 to 64 MB).
constexpr int64_t kMessageBytes = 16 << 20;

// From this size on a blocking reduction runs as reduce-scatter and all-gather (Reduction below)
// over scratch memory that is kept. Open MPI 4.1's own MPI_Allreduce allocates its scratch anew
// each time; a sum of 3 MiB of floats takes it 1.67 ms with 2 ranks of one machine, this 0.31 ms (4
// ranks on 2 cores: 3.8 and 1.2 ms).
constexpr int64_t kLargeReductionBytes = 64 << 10;
// What one rank then reduces at a time.
constexpr int64_t kReductionSliceBytes = 512 << 10;

std::string MpiErrorText(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
    return "MPI error " + std::to_string(code);
  return std::string(text, length);
}

void CheckBeforeGroup(int code, const char* call) {
  if (code != MPI_SUCCESS) throw CommError(std::string(call) + ": " + MpiErrorText(code));
}

int RankIn(MPI_Comm comm) {
  int rank = 0;
  CheckBeforeGroup(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int SizeOf(MPI_Comm comm) {
  int size = 0;
  CheckBeforeGroup(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

MPI_Datatype DatatypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kLong:
      return MPI_INT64_T;
    default:
      return MPI_BYTE;
  }
}

// Whether all requests are complete, after waiting for them if `wait`. One by one: MPI_Waitall of
// Open MPI 4.1 never returns if one of them had failed before, and says only that one did.
bool Complete(std::vector<MPI_Request>& requests, bool wait) {
  for (MPI_Request& request : requests) {
    int complete = 1;
    if (wait) {
      CheckBeforeGroup(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait");
    } else {
      CheckBeforeGroup(MPI_Test(&request, &complete, MPI_STATUS_IGNORE), "MPI_Test");
    }
    if (!complete) return false;
  }
  return true;
}

// Memory for reductions under way, given back and used again: fresh pages cost more than the sums.
class ScratchPool {
 public:
  std::vector<std::byte> Take(size_t bytes) {
    std::vector<std::byte> scratch;
    if (!free_.empty()) {
      scratch = std::move(free_.back());
      free_.pop_back();
    }
    if (scratch.size() < bytes) scratch.resize(bytes);
    return scratch;
  }
  void GiveBack(std::vector<std::byte> scratch) { free_.push_back(std::move(scratch)); }

 private:
  std::vector<std::vector<std::byte>> free_;
};

// One reduction under way: everyone sends every other rank that rank's part, sums what it receives
// of its own part in the order of the ranks, and (unless `scatter`) sends the sum to all.
class Reduction final : public PendingCollective {
 public:
  // `tag` and `tag` + 1 must be this reduction's own among the messages of `comm`.
  Reduction(const at::Tensor& tensor, bool scatter, MPI_Comm comm, int tag, ScratchPool& pool)
      : tensor_(tensor),
        data_(static_cast<std::byte*>(tensor.mutable_data_ptr())),
        element_(static_cast<int64_t>(tensor.element_size())),
        type_(DatatypeOf(tensor)),
        rank_(RankIn(comm)),
        size_(SizeOf(comm)),
        scatter_(scatter),
        comm_(comm),
        tag_(tag),
        pool_(pool) {
    const RowRange own = PartOf(rank_);
    scratch_ = pool_.Take(static_cast<size_t>((size_ - 1) * own.size() * element_));
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      Receive(Arrived(peer), own.size(), peer, tag_);
      Send(peer, PartOf(peer), tag_);
    }
  }

  // With messages under way (an exception ended the step), their memory must stay.
  ~Reduction() override {
    if (requests_.empty()) return;
    new at::Tensor(tensor_);
    new std::vector<std::byte>(std::move(scratch_));
  }

  bool Test() override {
    while (!done_) {
      if (!Complete(requests_, /*wait=*/false)) return false;
      NextPhase();
    }
    return true;
  }

  void Wait() override {
    while (!done_) {
      Complete(requests_, /*wait=*/true);
      NextPhase();
    }
  }

 private:
  RowRange PartOf(int rank) const { return RowsOfRank(tensor_.numel(), size_, rank); }
  // Where another rank's contribution to this rank's part arrives.
  std::byte* Arrived(int peer) {
    return scratch_.data() + (peer < rank_ ? peer : peer - 1) * PartOf(rank_).size() * element_;
  }

  void Send(int peer, RowRange part, int tag) {
    if (part.size() == 0) return;
    requests_.emplace_back();
    CheckBeforeGroup(MPI_Isend(data_ + part.begin * element_, static_cast<int>(part.size()), type_,
                               peer, tag, comm_, &requests_.back()),
                     "MPI_Isend");
  }
  void Receive(std::byte* target, int64_t count, int peer, int tag) {
    if (count == 0) return;
    requests_.emplace_back();
    CheckBeforeGroup(
        MPI_Irecv(target, static_cast<int>(count), type_, peer, tag, comm_, &requests_.back()),
        "MPI_Irecv");
  }

  void NextPhase() {
    requests_.clear();
    if (!summed_) {
      SumArrived();
      summed_ = true;
      pool_.GiveBack(std::move(scratch_));
      if (!scatter_) Spread();
      if (!requests_.empty()) return;
    }
    done_ = true;
  }

  // In the order of the ranks: ((x_0 + x_1) + x_2) + ..., whoever sums.
  void SumArrived() {
    const RowRange own = PartOf(rank_);
    if (own.size() == 0) return;
    std::byte* mine = data_ + own.begin * element_;
    const auto add = [&](const std::byte* from, std::byte* to) {
      CheckBeforeGroup(MPI_Reduce_local(from, to, static_cast<int>(own.size()), type_, MPI_SUM),
                       "MPI_Reduce_local");
    };
    if (rank_ == 0) {
      for (int peer = 1; peer < size_; ++peer) add(Arrived(peer), mine);
      return;
    }
    std::byte* sum = Arrived(0);
    for (int peer = 1; peer < size_; ++peer) add(peer == rank_ ? mine : Arrived(peer), sum);
    std::memcpy(mine, sum, static_cast<size_t>(own.size() * element_));
  }

  void Spread() {
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      const RowRange part = PartOf(peer);
      Receive(data_ + part.begin * element_, part.size(), peer, tag_ + 1);
      Send(peer, PartOf(rank_), tag_ + 1);
    }
  }

  at::Tensor tensor_;
  std::byte* data_;
  int64_t element_;
  MPI_Datatype type_;
  int rank_, size_;
  bool scatter_;
  MPI_Comm comm_;
  int tag_;
  ScratchPool& pool_;
  std::vector<std::byte> scratch_;
  std::vector<MPI_Request> requests_;
  bool summed_ = false, done_ = false;
};

// One exchange under way: all messages at once, each pair's in the order of the calls, so that one
// tag serves all exchanges. What a rank has for itself is copied at once.
class RowExchange final : public PendingCollective {
 public:
  RowExchange(const std::byte* send, const std::vector<int64_t>& send_rows, std::byte* recv,
              const std::vector<int64_t>& recv_rows, int64_t row_bytes, MPI_Comm comm)
      : comm_(comm) {
    const int rank = RankIn(comm), size = SizeOf(comm);
    const std::vector<int64_t> send_begin = PartBegins(send_rows, row_bytes);
    const std::vector<int64_t> recv_begin = PartBegins(recv_rows, row_bytes);
    // Pairwise: the k-th messages go to the k-th rank after this one and come from the k-th before
    // it, so that not all send to the same.
    for (int round = 1; round < size; ++round) {
      const int to = (rank + round) % size, from = (rank - round + size) % size;
      Receive(recv + recv_begin[from], recv_rows[from] * row_bytes, from);
      Send(send + send_begin[to], send_rows[to] * row_bytes, to);
    }
    const int64_t own_bytes = send_rows[rank] * row_bytes;
    if (own_bytes > 0) std::memcpy(recv + recv_begin[rank], send + send_begin[rank], own_bytes);
  }

  bool Test() override { return Complete(requests_, /*wait=*/false); }
  void Wait() override { Complete(requests_, /*wait=*/true); }

 private:
  static constexpr int kTag = 1;

  static std::vector<int64_t> PartBegins(const std::vector<int64_t>& rows, int64_t row_bytes) {
    std::vector<int64_t> begins(rows.size(), 0);
    for (size_t p = 1; p < rows.size(); ++p) begins[p] = begins[p - 1] + rows[p - 1] * row_bytes;
    return begins;
  }

  // In pieces. An empty part costs no message; both ends know its size.
  void Send(const std::byte* data, int64_t bytes, int peer) {
    for (int64_t begin = 0; begin < bytes; begin += kMessageBytes) {
      requests_.emplace_back();
      CheckBeforeGroup(
          MPI_Isend(data + begin, static_cast<int>(std::min(kMessageBytes, bytes - begin)),
                    MPI_BYTE, peer, kTag, comm_, &requests_.back()),
          "MPI_Isend");
    }
  }
  void Receive(std::byte* data, int64_t bytes, int peer) {
    for (int64_t begin = 0; begin < bytes; begin += kMessageBytes) {
      requests_.emplace_back();
      CheckBeforeGroup(
          MPI_Irecv(data + begin, static_cast<int>(std::min(kMessageBytes, bytes - begin)),
                    MPI_BYTE, peer, kTag, comm_, &requests_.back()),
          "MPI_Irecv");
    }
  }

  MPI_Comm comm_;
  std::vector<MPI_Request> requests_;
};

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `comm`.
  MpiCommunicator(const std::string& name, MPI_Comm comm)
      : Communicator(name, RankIn(comm), SizeOf(comm)), comm_(comm) {
    // The default handler ends the process without a word about the group or the call.
    Check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }

  ~MpiCommunicator() override {
    int finalized = 0;
    if (MPI_Finalized(&finalized) == MPI_SUCCESS && !finalized) MPI_Comm_free(&comm_);
  }

  std::unique_ptr<Communicator> Split(const std::string& name, int color, int key) override {
    if (color < 0) Fail("Split", "color " + std::to_string(color) + " must not be negative");
    MPI_Comm part = MPI_COMM_NULL;
    Check(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    return std::make_unique<MpiCommunicator>(name, part);
  }

 protected:
  // All ranks get the same bits: MPI demands it of MPI_Allreduce, and in the large form one rank
  // alone computes each element.
  void DoAllReduceSum(const at::Tensor& tensor) override {
    if (static_cast<int64_t>(tensor.nbytes()) < kLargeReductionBytes) {
      SmallAllReduce(tensor, MPI_SUM);
      return;
    }
    const at::Tensor flat = tensor.view({-1});
    const int64_t piece =
        kReductionSliceBytes * size() / static_cast<int64_t>(tensor.element_size());
    for (int64_t begin = 0; begin < flat.numel(); begin += piece) {
      const at::Tensor slice = flat.narrow(0, begin, std::min(piece, flat.numel() - begin));
      Named("all_reduce",
            [&] { Reduction(slice, /*scatter=*/false, comm_, NextTag(), pool_).Wait(); });
    }
  }

  void DoAllReduceMax(const at::Tensor& tensor) override { SmallAllReduce(tensor, MPI_MAX); }

  std::unique_ptr<PendingCollective> DoStartReduction(const at::Tensor& tensor,
                                                      bool scatter) override {
    CheckCount(tensor);
    return Named("a reduction", [&] {
      return std::make_unique<Reduction>(tensor, scatter, comm_, NextTag(), pool_);
    });
  }

  void DoAllGatherParts(const at::Tensor& flat) override {
    auto* data = static_cast<std::byte*>(flat.mutable_data_ptr());
    const int64_t element = static_cast<int64_t>(flat.element_size());
    const auto part = [&](int p) {
      const RowRange range = RowsOfRank(flat.numel(), size(), p);
      return Incoming{data + range.begin * element, range.size() * element, p};
    };
    for (int round = 1; round < size(); ++round) {
      const int to = (rank() + round) % size();
      const int from = (rank() - round + size()) % size();
      const Incoming own = part(rank());
      SendReceive({own.data, own.bytes, to}, part(from));
    }
  }

  void DoBroadcast(const at::Tensor& tensor, int root) override {
    auto* data = static_cast<std::byte*>(tensor.mutable_data_ptr());
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    for (int64_t begin = 0; begin < bytes; begin += kMessageBytes) {
      const int count = static_cast<int>(std::min(kMessageBytes, bytes - begin));
      Check(MPI_Bcast(data + begin, count, MPI_BYTE, root, comm_), "MPI_Bcast");
    }
  }

  std::unique_ptr<PendingCollective> DoStartAllToAll(const void* send,
                                                     const std::vector<int64_t>& send_rows,
                                                     void* recv,
                                                     const std::vector<int64_t>& recv_rows,
                                                     int64_t row_bytes) override {
    return Named("all_to_all", [&] {
      return std::make_unique<RowExchange>(static_cast<const std::byte*>(send), send_rows,
                                           static_cast<std::byte*>(recv), recv_rows, row_bytes,
                                           comm_);
    });
  }

  std::vector<std::string> DoAllGatherText(const std::string& text) override {
    const int64_t length = static_cast<int64_t>(text.size());
    std::vector<int64_t> lengths(size());
    Check(MPI_Allgather(&length, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, comm_),
          "MPI_Allgather");
    const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    if (total > std::numeric_limits<int>::max()) {
      Fail("AllGatherText",
           "texts of " + std::to_string(total) + " bytes are too long, expected less than 2 GiB");
    }
    std::vector<int> counts(lengths.begin(), lengths.end());
    std::vector<int> begins(size(), 0);
    std::partial_sum(counts.begin(), counts.end() - 1, begins.begin() + 1);
    std::string all(total, '\0');
    Check(MPI_Allgatherv(text.data(), static_cast<int>(length), MPI_BYTE, all.data(), counts.data(),
                         begins.data(), MPI_BYTE, comm_),
          "MPI_Allgatherv");
    std::vector<std::string> texts;
    for (int p = 0; p < size(); ++p) texts.push_back(all.substr(begins[p], counts[p]));
    return texts;
  }

  void DoBarrier() override { Check(MPI_Barrier(comm_), "MPI_Barrier"); }

 private:
  struct Outgoing {
    const std::byte* data;
    int64_t bytes;
    int peer;
  };
  struct Incoming {
    std::byte* data;
    int64_t bytes;
    int peer;
  };

  void Check(int code, const char* call) const {
    if (code != MPI_SUCCESS) Fail(call, MpiErrorText(code));
  }

  // Calls what knows neither group nor rank: its errors then name them.
  template <typename Call>
  std::invoke_result_t<Call> Named(const char* what, const Call& call) const {
    try {
      return call();
    } catch (const CommError& error) {
      Fail(what, error.what());
    }
  }

  // Sends and receives at the same time, in pieces. A direction that has no pieces left, or none at
  // all, is left out, so an empty part costs no message; both ends know its size.
  void SendReceive(Outgoing out, Incoming in) {
    constexpr int kTag = 0;
    for (int64_t begin = 0; begin < std::max(out.bytes, in.bytes); begin += kMessageBytes) {
      const int64_t send_bytes = std::clamp<int64_t>(out.bytes - begin, 0, kMessageBytes);
      const int64_t recv_bytes = std::clamp<int64_t>(in.bytes - begin, 0, kMessageBytes);
      Check(MPI_Sendrecv(out.data + (send_bytes > 0 ? begin : 0), static_cast<int>(send_bytes),
                         MPI_BYTE, send_bytes > 0 ? out.peer : MPI_PROC_NULL, kTag,
                         in.data + (recv_bytes > 0 ? begin : 0), static_cast<int>(recv_bytes),
                         MPI_BYTE, recv_bytes > 0 ? in.peer : MPI_PROC_NULL, kTag, comm_,
                         MPI_STATUS_IGNORE),
            "MPI_Sendrecv");
    }
  }

  void SmallAllReduce(const at::Tensor& tensor, MPI_Op op) {
    CheckCount(tensor);
    Check(MPI_Allreduce(MPI_IN_PLACE, tensor.mutable_data_ptr(), static_cast<int>(tensor.numel()),
                        DatatypeOf(tensor), op, comm_),
          "MPI_Allreduce");
  }

  void CheckCount(const at::Tensor& tensor) const {
    if (tensor.numel() <= std::numeric_limits<int>::max()) return;
    Fail("reduction", std::to_string(tensor.numel()) +
                          " elements are too many for one message, expected below 2^31");
  }

  // Two tags a reduction; what is older by all the others is long done.
  int NextTag() {
    constexpr int kTags = 8192;  // MPI guarantees 32767
    next_tag_ = (next_tag_ + 1) % kTags;
    return 2 * next_tag_ + 2;
  }

  MPI_Comm comm_;
  ScratchPool pool_;
  int next_tag_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> NewMpiWorldCommunicator() {
  // A communicator of its own, so that nothing else in the process can take its messages.
  MPI_Comm world = MPI_COMM_NULL;
  CheckBeforeGroup(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return std::make_unique<MpiCommunicator>("world", world);
}

}  // namespace hypermoe
