#include "parallel/communicator.h"

#include <ATen/ops/empty.h>

#include <chrono>

namespace hypermoe {
namespace {

// Adds one call to a ledger entry when it goes out of scope.
class Metered {
 public:
  Metered(Traffic& traffic, int64_t bytes)
      : traffic_(traffic), bytes_(bytes), start_(std::chrono::steady_clock::now()) {}
  ~Metered() {
    traffic_.calls += 1;
    traffic_.bytes += bytes_;
    traffic_.seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  Metered(const Metered&) = delete;
  Metered& operator=(const Metered&) = delete;

 private:
  Traffic& traffic_;
  int64_t bytes_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

void Communicator::Fail(const std::string& call, const std::string& what) const {
  throw CommError(call + " in group '" + name_ + "' (rank " + std::to_string(rank_) + " of " +
                  std::to_string(size_) + "): " + what);
}

void Communicator::CheckTensor(const char* call, const at::Tensor& tensor, bool reduction) const {
  if (!tensor.defined() || !tensor.is_cpu() || !tensor.is_contiguous()) {
    Fail(call, "the tensor must be defined, contiguous and on the CPU");
  }
  const at::ScalarType dtype = tensor.scalar_type();
  const bool reducible = dtype == at::kFloat || dtype == at::kDouble || dtype == at::kLong;
  if (!reducible && (reduction || dtype != at::kByte)) {
    Fail(call, std::string("dtype ") + c10::toString(dtype) + " is not one of float32, float64, " +
                   (reduction ? "int64" : "int64, uint8"));
  }
}

int64_t Communicator::CheckRowCounts(const char* call, const char* argument,
                                     const std::vector<int64_t>& rows) const {
  if (rows.size() != static_cast<size_t>(size_)) {
    Fail(call, std::string(argument) + " has " + std::to_string(rows.size()) +
                   " entries, expected one per rank");
  }
  int64_t total = 0;
  for (int64_t count : rows) {
    if (count < 0) {
      Fail(call, std::string(argument) + " has the negative entry " + std::to_string(count));
    }
    total += count;
  }
  return total;
}

void Communicator::AllReduceSum(const at::Tensor& tensor) {
  CheckTensor("AllReduceSum", tensor, /*reduction=*/true);
  Metered metered(traffic_[static_cast<int>(Collective::kAllReduce)],
                  size_ > 1 ? static_cast<int64_t>(tensor.nbytes()) : 0);
  DoAllReduceSum(tensor);
}

void Communicator::AllReduceMax(const at::Tensor& tensor) {
  CheckTensor("AllReduceMax", tensor, /*reduction=*/true);
  Metered metered(traffic_[static_cast<int>(Collective::kAllReduce)],
                  size_ > 1 ? static_cast<int64_t>(tensor.nbytes()) : 0);
  DoAllReduceMax(tensor);
}

void Communicator::Broadcast(const at::Tensor& tensor, int root) {
  CheckTensor("Broadcast", tensor, /*reduction=*/false);
  if (root < 0 || root >= size_) {
    Fail("Broadcast", "root " + std::to_string(root) + " is not a rank of the group");
  }
  Metered metered(traffic_[static_cast<int>(Collective::kBroadcast)],
                  size_ > 1 ? static_cast<int64_t>(tensor.nbytes()) : 0);
  DoBroadcast(tensor, root);
}

at::Tensor Communicator::AllToAllRows(const at::Tensor& rows, const std::vector<int64_t>& send_rows,
                                      const std::vector<int64_t>& recv_rows) {
  constexpr const char* kCall = "AllToAllRows";
  CheckTensor(kCall, rows, /*reduction=*/false);
  const int64_t num_sent = CheckRowCounts(kCall, "send_rows", send_rows);
  const int64_t num_received = CheckRowCounts(kCall, "recv_rows", recv_rows);
  if (rows.dim() == 0 || rows.size(0) != num_sent) {
    Fail(kCall, "send_rows add up to " + std::to_string(num_sent) + ", but the tensor has " +
                    std::to_string(rows.dim() == 0 ? 0 : rows.size(0)) + " rows");
  }
  const int64_t own_rows = send_rows[rank_];
  if (own_rows != recv_rows[rank_]) {
    Fail(kCall, "this rank sends itself " + std::to_string(own_rows) + " rows but expects " +
                    std::to_string(recv_rows[rank_]) + " from itself");
  }
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = num_received;
  int64_t row_bytes = static_cast<int64_t>(rows.element_size());
  for (size_t axis = 1; axis < shape.size(); ++axis) row_bytes *= shape[axis];

  Metered metered(traffic_[static_cast<int>(Collective::kAllToAll)],
                  (num_sent - own_rows) * row_bytes);
  at::Tensor received = at::empty(shape, rows.options());
  DoAllToAll(rows.const_data_ptr(), send_rows, received.mutable_data_ptr(), recv_rows, row_bytes);
  return received;
}

std::vector<int64_t> Communicator::AllToAllCounts(const std::vector<int64_t>& counts) {
  if (counts.size() % static_cast<size_t>(size_) != 0) {
    Fail("AllToAllCounts",
         std::to_string(counts.size()) + " counts cannot be cut into one equal part per rank");
  }
  const int64_t per_rank = static_cast<int64_t>(counts.size()) / size_;
  constexpr int64_t kCountBytes = sizeof(int64_t);
  Metered metered(traffic_[static_cast<int>(Collective::kAllToAllCounts)],
                  per_rank * (size_ - 1) * kCountBytes);
  const std::vector<int64_t> parts(size_, per_rank);
  std::vector<int64_t> received(counts.size());
  DoAllToAll(counts.data(), parts, received.data(), parts, kCountBytes);
  return received;
}

std::vector<std::string> Communicator::AllGatherText(const std::string& text) {
  Metered metered(traffic_[static_cast<int>(Collective::kAllGather)],
                  size_ > 1 ? static_cast<int64_t>(text.size()) : 0);
  return DoAllGatherText(text);
}

void Communicator::Barrier() {
  Metered metered(traffic_[static_cast<int>(Collective::kBarrier)], 0);
  DoBarrier();
}

}  // namespace hypermoe
