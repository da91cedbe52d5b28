#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>

#include "parallel/communicator.h"

namespace hypermoe {
namespace {

// Below the limit of MPI's int counts by far; larger messages gain nothing (measured, 2 ranks of
// one machine: 8 to 11 GB/s with messages from 1 to 64 MB).
constexpr int64_t kMessageBytes = 16 << 20;

// From this size on a reduction runs as reduce-scatter and all-gather over a scratch buffer that is
// kept. Open MPI 4.1's own MPI_Allreduce allocates its scratch anew each time; a sum of 3 MiB of
// floats takes it 1.67 ms with 2 ranks of one machine, this 0.31 ms (4 ranks on 2 cores: 3.8
// and 1.2 ms).
constexpr int64_t kLargeReductionBytes = 64 << 10;
// What one rank reduces of a large operand at a time, so the size of that scratch buffer.
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
  void DoAllReduceSum(const at::Tensor& tensor) override { AllReduce(tensor, MPI_SUM); }
  void DoAllReduceMax(const at::Tensor& tensor) override { AllReduce(tensor, MPI_MAX); }

  void DoBroadcast(const at::Tensor& tensor, int root) override {
    auto* data = static_cast<std::byte*>(tensor.mutable_data_ptr());
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    for (int64_t begin = 0; begin < bytes; begin += kMessageBytes) {
      const int count = static_cast<int>(std::min(kMessageBytes, bytes - begin));
      Check(MPI_Bcast(data + begin, count, MPI_BYTE, root, comm_), "MPI_Bcast");
    }
  }

  // Pairwise: in round k every rank sends to the k-th rank after it and receives from the k-th
  // before it. Unlike MPI_Alltoallv it needs no int displacements, and it is what Open MPI itself
  // does, at the same speed.
  void DoAllToAll(const void* send, const std::vector<int64_t>& send_rows, void* recv,
                  const std::vector<int64_t>& recv_rows, int64_t row_bytes) override {
    const std::vector<int64_t> send_begin = PartBegins(send_rows, row_bytes);
    const std::vector<int64_t> recv_begin = PartBegins(recv_rows, row_bytes);
    const auto* source = static_cast<const std::byte*>(send);
    auto* target = static_cast<std::byte*>(recv);
    const int64_t own_bytes = send_rows[rank()] * row_bytes;
    if (own_bytes > 0) {
      std::memcpy(target + recv_begin[rank()], source + send_begin[rank()], own_bytes);
    }
    for (int round = 1; round < size(); ++round) {
      const int to = (rank() + round) % size();
      const int from = (rank() - round + size()) % size();
      SendReceive({source + send_begin[to], send_rows[to] * row_bytes, to},
                  {target + recv_begin[from], recv_rows[from] * row_bytes, from});
    }
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

  static std::vector<int64_t> PartBegins(const std::vector<int64_t>& rows, int64_t row_bytes) {
    std::vector<int64_t> begins(rows.size(), 0);
    for (size_t p = 1; p < rows.size(); ++p) begins[p] = begins[p - 1] + rows[p - 1] * row_bytes;
    return begins;
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

  // All ranks get the same bits: MPI demands it of MPI_Allreduce, and in the large form one rank
  // alone computes each element, in an order fixed by the ranks.
  void AllReduce(const at::Tensor& tensor, MPI_Op op) {
    if (size() == 1 || tensor.numel() == 0) return;
    const MPI_Datatype type = DatatypeOf(tensor);
    auto* data = static_cast<std::byte*>(tensor.mutable_data_ptr());
    const int64_t element = static_cast<int64_t>(tensor.element_size());
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    if (bytes < kLargeReductionBytes) {
      Check(MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(tensor.numel()), type, op, comm_),
            "MPI_Allreduce");
      return;
    }
    scratch_.resize(kReductionSliceBytes);
    const int64_t piece = kReductionSliceBytes * size();
    for (int64_t begin = 0; begin < bytes; begin += piece) {
      ReduceScatterAllGather(data + begin, std::min(piece, bytes - begin) / element, element, type,
                             op);
    }
  }

  void ReduceScatterAllGather(std::byte* data, int64_t count, int64_t element, MPI_Datatype type,
                              MPI_Op op) {
    const auto begin = [&](int p) { return data + count * p / size() * element; };
    const auto bytes = [&](int p) { return begin(p + 1) - begin(p); };
    for (int round = 1; round < size(); ++round) {
      const int to = (rank() + round) % size();
      const int from = (rank() - round + size()) % size();
      SendReceive({begin(to), bytes(to), to}, {scratch_.data(), bytes(rank()), from});
      Check(MPI_Reduce_local(scratch_.data(), begin(rank()),
                             static_cast<int>(bytes(rank()) / element), type, op),
            "MPI_Reduce_local");
    }
    for (int round = 1; round < size(); ++round) {
      const int to = (rank() + round) % size();
      const int from = (rank() - round + size()) % size();
      SendReceive({begin(rank()), bytes(rank()), to}, {begin(from), bytes(from), from});
    }
  }

  MPI_Comm comm_;
  std::vector<std::byte> scratch_;
};

}  // namespace

std::unique_ptr<Communicator> NewMpiWorldCommunicator() {
  // A communicator of its own, so that nothing else in the process can take its messages.
  MPI_Comm world = MPI_COMM_NULL;
  CheckBeforeGroup(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return std::make_unique<MpiCommunicator>("world", world);
}

}  // namespace hypermoe
