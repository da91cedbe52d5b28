#include "parallel/communicator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "parallel/progress_marks.h"
#include "parallel/steady_seconds.h"

namespace hypermoe {
const char* CollectiveName(Collective kind) {
  constexpr std::array<const char*, kNumCollectives> kNames = {
      "all_to_all", "all_to_all_counts", "all_reduce", "reduce_scatter",
      "all_gather", "broadcast",         "barrier"};
  return kNames[static_cast<size_t>(kind)];
}

// Adds the time until it goes out of scope to the ledger, tells the observer, and marks meanwhile
// what this process is in.
class Communicator::Metered {
 public:
  Metered(Communicator& group, Collective kind, int64_t bytes)
      : group_(group),
        kind_(kind),
        bytes_(bytes),
        calls_(1),
        mark_(CollectiveName(kind), group.name_),
        begin_(SteadySeconds()) {}
  // Goes on with collective `number` (CollectiveMark), which was counted when it was started.
  struct Started {
    int64_t number;
  };
  Metered(Communicator& group, Collective kind, Started started)
      : group_(group),
        kind_(kind),
        bytes_(0),
        calls_(0),
        mark_(CollectiveName(kind), group.name_, started.number),
        begin_(SteadySeconds()) {}
  ~Metered() {
    const double end = SteadySeconds();
    Traffic& traffic = group_.traffic_[static_cast<int>(kind_)];
    traffic.calls += calls_;
    traffic.bytes += bytes_;
    traffic.seconds += end - begin_;
    if (group_.observer_) group_.observer_({kind_, group_.name_, bytes_, calls_ == 0, begin_, end});
  }
  Metered(const Metered&) = delete;
  Metered& operator=(const Metered&) = delete;

  int64_t number() const { return mark_.number(); }

 private:
  Communicator& group_;
  Collective kind_;
  int64_t bytes_, calls_;
  CollectiveMark mark_;
  double begin_;
};

// Tensors that messages under way use. If nobody has seen those done (an exception ended the step),
// their memory must stay.
class KeptTensors {
 public:
  explicit KeptTensors(std::vector<at::Tensor> tensors) : tensors_(std::move(tensors)) {}
  ~KeptTensors() {
    if (!tensors_.empty()) new std::vector<at::Tensor>(std::move(tensors_));
  }
  KeptTensors(const KeptTensors&) = delete;
  KeptTensors& operator=(const KeptTensors&) = delete;

  void Release() { tensors_.clear(); }

 private:
  std::vector<at::Tensor> tensors_;
};

// Puts the wait into the ledger too; the call and its bytes are counted at the start.
class Communicator::MeteredPending final : public PendingCollective {
 public:
  // `number`: of its start.
  MeteredPending(Communicator& group, Collective kind, int64_t number,
                 std::unique_ptr<PendingCollective> inner, std::vector<at::Tensor> kept = {})
      : group_(group),
        kind_(kind),
        number_(number),
        inner_(std::move(inner)),
        kept_(std::move(kept)) {}
  bool Test() override {
    return done_ || GoOn([&] { return inner_->Test(); });
  }
  void Wait() override {
    if (done_) return;
    GoOn([&] {
      inner_->Wait();
      return true;
    });
  }

 private:
  template <typename Call>
  bool GoOn(const Call& call) {
    Metered metered(group_, kind_, Metered::Started{number_});
    try {
      done_ = call();
    } catch (const CommError& error) {
      group_.Fail(CollectiveName(kind_), error.what());
    }
    if (done_) {
      kept_.Release();
      MarkProgress();
    }
    return done_;
  }

  Communicator& group_;
  Collective kind_;
  int64_t number_;
  std::unique_ptr<PendingCollective> inner_;
  KeptTensors kept_;
  bool done_ = false;
};

// From `rows` into `received`; the argument checks have been made.
struct Communicator::Exchange {
  const char* call;
  Collective kind;
  at::Tensor rows, received;
  std::vector<int64_t> send_rows, recv_rows;
  int64_t row_bytes = 0;
  bool equal = false;

  int64_t BytesToOthers(int rank) const { return (rows.size(0) - send_rows[rank]) * row_bytes; }
};

void Communicator::Fail(const std::string& call, const std::string& what) const {
  throw CommError(call + " in group '" + name_ + "' (rank " + std::to_string(rank_) + " of " +
                  std::to_string(size_) + "): " + what);
}

void Communicator::CheckTensor(const char* call, const at::Tensor& tensor, bool reduction) const {
  if (!tensor.defined() || !tensor.is_contiguous()) {
    Fail(call, "the tensor must be defined and contiguous");
  }
  if (!tensor.is_cpu() && tensor.device() != device_) {
    Fail(call, "the tensor is on " + tensor.device().str() + ", but this group's transport takes " +
                   (device_.is_cpu() ? "cpu alone" : "cpu and " + device_.str()));
  }
  const at::ScalarType dtype = tensor.scalar_type();
  const bool sums_bfloat16 = reduction && ReducesBFloat16(tensor.device());
  const bool number = dtype == at::kFloat || dtype == at::kDouble || dtype == at::kLong;
  const bool fits = number || (dtype == at::kBFloat16 && (!reduction || sums_bfloat16)) ||
                    (dtype == at::kByte && !reduction);
  if (!fits) {
    Fail(call, std::string("dtype ") + c10::toString(dtype) +
                   " is not one of float32, float64, int64" +
                   (reduction ? (sums_bfloat16 ? ", bfloat16" : "") : ", bfloat16, uint8"));
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
  Metered metered(*this, Collective::kAllReduce, OperandBytes(tensor));
  DoAllReduceSum(tensor);
}

int64_t Communicator::OperandBytes(const at::Tensor& tensor) const {
  return size_ > 1 ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

std::unique_ptr<PendingCollective> Communicator::StartReduction(const char* call,
                                                                const at::Tensor& tensor,
                                                                bool scatter) {
  CheckTensor(call, tensor, /*reduction=*/true);
  const Collective kind = scatter ? Collective::kReduceScatter : Collective::kAllReduce;
  Metered metered(*this, kind, OperandBytes(tensor));
  return std::make_unique<MeteredPending>(*this, kind, metered.number(),
                                          DoStartReduction(tensor, scatter));
}

std::unique_ptr<PendingCollective> Communicator::StartAllReduceSum(const at::Tensor& tensor) {
  return StartReduction("StartAllReduceSum", tensor, /*scatter=*/false);
}

std::unique_ptr<PendingCollective> Communicator::StartReduceScatterSum(const at::Tensor& flat) {
  return StartReduction("StartReduceScatterSum", flat, /*scatter=*/true);
}

void Communicator::AllGatherParts(const at::Tensor& flat) {
  CheckTensor("AllGatherParts", flat, /*reduction=*/false);
  Metered metered(*this, Collective::kAllGather, OperandBytes(flat));
  DoAllGatherParts(flat);
}

void Communicator::AllReduceMax(const at::Tensor& tensor) {
  CheckTensor("AllReduceMax", tensor, /*reduction=*/true);
  Metered metered(*this, Collective::kAllReduce, OperandBytes(tensor));
  DoAllReduceMax(tensor);
}

void Communicator::Broadcast(const at::Tensor& tensor, int root) {
  CheckTensor("Broadcast", tensor, /*reduction=*/false);
  if (root < 0 || root >= size_) {
    Fail("Broadcast", "root " + std::to_string(root) + " is not a rank of the group");
  }
  Metered metered(*this, Collective::kBroadcast, OperandBytes(tensor));
  DoBroadcast(tensor, root);
}

int64_t Communicator::RowNumel(const at::Tensor& rows) {
  int64_t numel = 1;
  for (const int64_t size : rows.sizes().slice(1)) numel *= size;
  return numel;
}

std::unique_ptr<PendingCollective> Communicator::DoStartAllToAllRows(
    const at::Tensor& rows, const std::vector<int64_t>& send_rows, const at::Tensor& received,
    const std::vector<int64_t>& recv_rows, bool /*equal*/) {
  return DoStartAllToAll(rows.const_data_ptr(), send_rows, received.mutable_data_ptr(), recv_rows,
                         RowNumel(rows) * static_cast<int64_t>(rows.element_size()));
}

Communicator::Exchange Communicator::CheckedExchange(const char* call, const at::Tensor& rows,
                                                     const std::vector<int64_t>& send_rows,
                                                     const std::vector<int64_t>& recv_rows,
                                                     bool equal) const {
  const int64_t num_sent = CheckRowCounts(call, "send_rows", send_rows);
  const int64_t num_received = CheckRowCounts(call, "recv_rows", recv_rows);
  if (rows.dim() == 0 || rows.size(0) != num_sent) {
    Fail(call, "send_rows add up to " + std::to_string(num_sent) + ", but the tensor has " +
                   std::to_string(rows.dim() == 0 ? 0 : rows.size(0)) + " rows");
  }
  if (send_rows[rank_] != recv_rows[rank_]) {
    Fail(call, "this rank sends itself " + std::to_string(send_rows[rank_]) + " rows but expects " +
                   std::to_string(recv_rows[rank_]) + " from itself");
  }
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = num_received;
  const int64_t row_bytes = RowNumel(rows) * static_cast<int64_t>(rows.element_size());
  return {call,      Collective::kAllToAll,
          rows,      at::empty(shape, rows.options()),
          send_rows, recv_rows,
          row_bytes, equal};
}

Communicator::Exchange Communicator::UnevenExchange(const char* call, const at::Tensor& rows,
                                                    const std::vector<int64_t>& send_rows,
                                                    const std::vector<int64_t>& recv_rows) const {
  CheckTensor(call, rows, /*reduction=*/false);
  return CheckedExchange(call, rows, send_rows, recv_rows, /*equal=*/false);
}

Communicator::Exchange Communicator::EqualExchange(const char* call, const at::Tensor& rows) const {
  CheckTensor(call, rows, /*reduction=*/false);
  if (rows.dim() == 0 || rows.size(0) % size_ != 0) {
    Fail(call, std::to_string(rows.dim() == 0 ? 0 : rows.size(0)) +
                   " rows cannot be cut into one equal part per rank");
  }
  const std::vector<int64_t> parts(size_, rows.size(0) / size_);
  return CheckedExchange(call, rows, parts, parts, /*equal=*/true);
}

Communicator::Exchange Communicator::CountExchange(const char* call,
                                                   const std::vector<int64_t>& counts) const {
  if (counts.size() % static_cast<size_t>(size_) != 0) {
    Fail(call,
         std::to_string(counts.size()) + " counts cannot be cut into one equal part per rank");
  }
  const std::vector<int64_t> parts(size_, static_cast<int64_t>(counts.size()) / size_);
  const at::Tensor sent = at::empty({static_cast<int64_t>(counts.size())}, at::kLong);
  std::copy(counts.begin(), counts.end(), sent.mutable_data_ptr<int64_t>());
  return {call,
          Collective::kAllToAllCounts,
          sent,
          at::empty_like(sent),
          parts,
          parts,
          sizeof(int64_t),
          /*equal=*/true};
}

std::unique_ptr<PendingCollective> Communicator::Issue(const Exchange& exchange) {
  if (exchange.kind == Collective::kAllToAllCounts) {
    return DoStartAllToAll(exchange.rows.const_data_ptr(), exchange.send_rows,
                           exchange.received.mutable_data_ptr(), exchange.recv_rows,
                           exchange.row_bytes);
  }
  return DoStartAllToAllRows(exchange.rows, exchange.send_rows, exchange.received,
                             exchange.recv_rows, exchange.equal);
}

at::Tensor Communicator::Run(const Exchange& exchange) {
  Metered metered(*this, exchange.kind, exchange.BytesToOthers(rank_));
  KeptTensors kept({exchange.rows, exchange.received});
  const std::unique_ptr<PendingCollective> pending = Issue(exchange);
  try {
    pending->Wait();
  } catch (const CommError& error) {
    Fail(exchange.call, error.what());
  }
  kept.Release();
  return exchange.received;
}

StartedExchange Communicator::Start(const Exchange& exchange) {
  Metered metered(*this, exchange.kind, exchange.BytesToOthers(rank_));
  KeptTensors kept({exchange.rows, exchange.received});  // should starting throw half-way
  std::unique_ptr<PendingCollective> inner = Issue(exchange);
  kept.Release();
  return {exchange.received, std::make_unique<MeteredPending>(
                                 *this, exchange.kind, metered.number(), std::move(inner),
                                 std::vector<at::Tensor>{exchange.rows, exchange.received})};
}

at::Tensor Communicator::AllToAllRows(const at::Tensor& rows, const std::vector<int64_t>& send_rows,
                                      const std::vector<int64_t>& recv_rows) {
  return Run(UnevenExchange("AllToAllRows", rows, send_rows, recv_rows));
}

StartedExchange Communicator::StartAllToAllRows(const at::Tensor& rows,
                                                const std::vector<int64_t>& send_rows,
                                                const std::vector<int64_t>& recv_rows) {
  return Start(UnevenExchange("StartAllToAllRows", rows, send_rows, recv_rows));
}

at::Tensor Communicator::AllToAllEqualRows(const at::Tensor& rows) {
  return Run(EqualExchange("AllToAllEqualRows", rows));
}

StartedExchange Communicator::StartAllToAllEqualRows(const at::Tensor& rows) {
  return Start(EqualExchange("StartAllToAllEqualRows", rows));
}

std::vector<int64_t> Communicator::AllToAllCounts(const std::vector<int64_t>& counts) {
  const at::Tensor received = Run(CountExchange("AllToAllCounts", counts));
  const int64_t* data = received.const_data_ptr<int64_t>();
  return {data, data + received.numel()};
}

StartedExchange Communicator::StartAllToAllCounts(const std::vector<int64_t>& counts) {
  return Start(CountExchange("StartAllToAllCounts", counts));
}

std::vector<std::string> Communicator::AllGatherText(const std::string& text) {
  Metered metered(*this, Collective::kAllGather, size_ > 1 ? static_cast<int64_t>(text.size()) : 0);
  return DoAllGatherText(text);
}

void Communicator::Barrier() {
  Metered metered(*this, Collective::kBarrier, 0);
  DoBarrier();
}

}  // namespace hypermoe
