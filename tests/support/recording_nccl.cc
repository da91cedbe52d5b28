#include "tests/support/recording_nccl.h"

#include <ATen/ops/from_blob.h>
#include <mpi.h>
#include <nccl.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <utility>

struct ncclComm {
  MPI_Comm mpi = MPI_COMM_NULL;
  std::string name;
  int rank = 0, size = 1;
};

namespace hypermoe::recording_nccl {
namespace {

std::vector<NcclCall> calls;
int version = 0;
std::string failing_call, failing_group;
std::string watched_call;
std::function<void()> action_in_call;
std::string last_error;

int group_depth = 0;
std::vector<std::function<ncclResult_t()>> collectives;  // of the open group
struct Message {
  ncclComm_t comm;
  std::byte* data;
  int64_t bytes;
  int peer;
  bool is_send;
};
std::vector<Message> messages;  // of the open group

at::ScalarType ScalarOf(ncclDataType_t type) {
  switch (type) {
    case ncclFloat32:
      return at::kFloat;
    case ncclFloat64:
      return at::kDouble;
    case ncclInt64:
      return at::kLong;
    case ncclBfloat16:
      return at::kBFloat16;
    default:
      return at::kByte;
  }
}

const char* TypeName(ncclDataType_t type) { return c10::toString(ScalarOf(type)); }
const char* OpName(ncclRedOp_t op) { return op == ncclSum ? "sum" : "max"; }
int64_t BytesOf(ncclDataType_t type, size_t count) {
  return static_cast<int64_t>(count * c10::elementSize(ScalarOf(type)));
}

// Failures of the test's own MPI end the job: its communicators have MPI's default error handler.
MPI_Comm Copied(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  MPI_Comm_dup(comm, &copy);
  MPI_Comm_set_errhandler(copy, MPI_ERRORS_ARE_FATAL);
  return copy;
}

ncclResult_t Refuse(const std::string& why) {
  last_error = why;
  return ncclInvalidUsage;
}

// Records a call; what is not ncclSuccess it must return.
ncclResult_t Made(NcclCall call) {
  const bool fails = call.name == failing_call;
  if (call.name == watched_call) {
    watched_call.clear();
    action_in_call();
  }
  calls.push_back(std::move(call));
  if (!fails) return ncclSuccess;
  failing_call.clear();
  last_error = "cable unplugged";
  return ncclSystemError;
}

ncclResult_t Run(std::function<ncclResult_t()> collective) {
  if (group_depth == 0) return collective();
  collectives.push_back(std::move(collective));
  return ncclSuccess;
}

bool Overlap(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const auto *x = static_cast<const std::byte*>(a), *y = static_cast<const std::byte*>(b);
  return x < y + b_bytes && y < x + a_bytes;
}

// Everyone's `count` elements, reduced; bfloat16 as the float32 that its sums are made in.
at::Tensor Reduced(const void* send, size_t count, ncclDataType_t type, ncclRedOp_t op,
                   ncclComm_t comm) {
  const at::Tensor own =
      at::from_blob(const_cast<void*>(send), {static_cast<int64_t>(count)}, ScalarOf(type));
  const at::Tensor sum = own.scalar_type() == at::kBFloat16 ? own.to(at::kFloat) : own.clone();
  const MPI_Datatype mpi_type = sum.scalar_type() == at::kFloat    ? MPI_FLOAT
                                : sum.scalar_type() == at::kDouble ? MPI_DOUBLE
                                                                   : MPI_INT64_T;
  MPI_Allreduce(MPI_IN_PLACE, sum.mutable_data_ptr(), static_cast<int>(count), mpi_type,
                op == ncclSum ? MPI_SUM : MPI_MAX, comm->mpi);
  return sum.to(own.scalar_type());
}

void RunMessages() {
  std::vector<MPI_Request> requests(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& m = messages[i];
    (m.is_send ? MPI_Isend(m.data, static_cast<int>(m.bytes), MPI_BYTE, m.peer, 0, m.comm->mpi,
                           &requests[i])
               : MPI_Irecv(m.data, static_cast<int>(m.bytes), MPI_BYTE, m.peer, 0, m.comm->mpi,
                           &requests[i]));
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  messages.clear();
}

ncclResult_t AddMessage(const char* name, Message message, size_t count, ncclDataType_t type) {
  const ncclResult_t made = Made(
      {name, message.comm->name, static_cast<int64_t>(count), TypeName(type), "-", message.peer});
  if (made != ncclSuccess) return made;
  if (group_depth == 0) return Refuse("messages outside a group wait for each other");
  messages.push_back(message);
  return ncclSuccess;
}

}  // namespace

std::vector<NcclCall> Take() { return std::exchange(calls, {}); }
void Note(const std::string& step) { calls.push_back({step, "-"}); }
void SetVersion(int value) { version = value; }
void FailNext(const std::string& name) { failing_call = name; }
void InNext(const std::string& name, std::function<void()> action) {
  watched_call = name;
  action_in_call = std::move(action);
}
void FailInBackground(const std::string& group) { failing_group = group; }

}  // namespace hypermoe::recording_nccl

// Below the functions that nccl.h declares.
using namespace hypermoe::recording_nccl;

ncclResult_t ncclGetVersion(int* value) {
  *value = version != 0 ? version : NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSystemError    ? "unhandled system error"
         : result == ncclRemoteError  ? "remote process exited or there was a network error"
         : result == ncclInvalidUsage ? "invalid usage"
                                      : "other error";
}

const char* ncclGetLastError(ncclComm_t /*comm*/) { return last_error.c_str(); }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  for (size_t i = 0; i < sizeof(id->internal); ++i) id->internal[i] = static_cast<char>(7 * i + 1);
  return Made({"ncclGetUniqueId", "-"});
}

// Of all ranks of the world, or of one alone.
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const ncclResult_t made = Made({"ncclCommInitRankConfig", config->commName, nranks});
  if (made != ncclSuccess) return made;
  ncclUniqueId expected{};
  for (size_t i = 0; i < sizeof(id.internal); ++i) {
    expected.internal[i] = static_cast<char>(7 * i + 1);
  }
  if (std::memcmp(&id, &expected, sizeof(id)) != 0) return Refuse("not rank 0's id");
  const MPI_Comm all = Copied(nranks == 1 ? MPI_COMM_SELF : MPI_COMM_WORLD);
  int size = 0, position = 0;
  MPI_Comm_size(all, &size);
  MPI_Comm_rank(all, &position);
  if (size != nranks || position != rank) return Refuse("neither the world nor one rank");
  *comm = new ncclComm{all, config->commName, rank, nranks};
  return ncclSuccess;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part,
                           ncclConfig_t* config) {
  const ncclResult_t made = Made({"ncclCommSplit", comm->name});
  if (made != ncclSuccess) return made;
  MPI_Comm mpi = MPI_COMM_NULL;
  MPI_Comm_split(comm->mpi, color, key, &mpi);
  int rank = 0, size = 0;
  MPI_Comm_rank(mpi, &rank);
  MPI_Comm_size(mpi, &size);
  *part = new ncclComm{mpi, config->commName, rank, size};
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const ncclResult_t made = Made({"ncclCommDestroy", comm->name});
  MPI_Comm_free(&comm->mpi);
  delete comm;
  return made;
}

// Local, so it leaves its MPI communicator, which only all ranks together can free.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const ncclResult_t made = Made({"ncclCommAbort", comm->name});
  delete comm;
  return made;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->name == failing_group ? ncclRemoteError : ncclSuccess;
  if (*error != ncclSuccess) last_error = "peer gone";
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  const ncclResult_t made = Made({"ncclGroupStart", "-"});
  if (made == ncclSuccess) ++group_depth;
  return made;
}

ncclResult_t ncclGroupEnd() {
  const ncclResult_t made = Made({"ncclGroupEnd", "-"});
  if (group_depth == 0) return Refuse("no group is open");
  if (--group_depth > 0) return made;
  const auto waiting = std::exchange(collectives, {});
  if (made != ncclSuccess) {
    messages.clear();
    return made;
  }
  for (const auto& collective : waiting) {
    const ncclResult_t result = collective();
    if (result != ncclSuccess) return result;
  }
  RunMessages();
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* send, void* recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t /*stream*/) {
  const ncclResult_t made =
      Made({"ncclAllReduce", comm->name, static_cast<int64_t>(count), TypeName(type), OpName(op)});
  if (made != ncclSuccess) return made;
  return Run([=] {
    const at::Tensor sum = Reduced(send, count, type, op, comm);
    std::memcpy(recv, sum.const_data_ptr(), sum.nbytes());
    return ncclSuccess;
  });
}

ncclResult_t ncclReduce(const void* send, void* recv, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t /*stream*/) {
  const ncclResult_t made = Made(
      {"ncclReduce", comm->name, static_cast<int64_t>(count), TypeName(type), OpName(op), root});
  if (made != ncclSuccess) return made;
  return Run([=] {
    const at::Tensor sum = Reduced(send, count, type, op, comm);
    if (comm->rank == root) std::memcpy(recv, sum.const_data_ptr(), sum.nbytes());
    return ncclSuccess;
  });
}

ncclResult_t ncclReduceScatter(const void* send, void* recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t /*stream*/) {
  const ncclResult_t made = Made(
      {"ncclReduceScatter", comm->name, static_cast<int64_t>(count), TypeName(type), OpName(op)});
  if (made != ncclSuccess) return made;
  const int64_t part = BytesOf(type, count);
  const auto* own = static_cast<const std::byte*>(send) + comm->rank * part;
  if (recv != own && Overlap(send, part * comm->size, recv, part)) {
    return Refuse("in place, the part must be the rank's own");
  }
  return Run([=] {
    const at::Tensor sum = Reduced(send, count * comm->size, type, op, comm);
    std::memcpy(recv, static_cast<const std::byte*>(sum.const_data_ptr()) + comm->rank * part,
                static_cast<size_t>(part));
    return ncclSuccess;
  });
}

ncclResult_t ncclAllGather(const void* send, void* recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t /*stream*/) {
  const ncclResult_t made =
      Made({"ncclAllGather", comm->name, static_cast<int64_t>(count), TypeName(type)});
  if (made != ncclSuccess) return made;
  const int64_t part = BytesOf(type, count);
  const auto* own = static_cast<const std::byte*>(recv) + comm->rank * part;
  if (send != own && Overlap(send, part, recv, part * comm->size)) {
    return Refuse("in place, the part must be the rank's own");
  }
  return Run([=] {
    const std::vector<std::byte> sent(static_cast<const std::byte*>(send),
                                      static_cast<const std::byte*>(send) + part);
    MPI_Allgather(sent.data(), static_cast<int>(part), MPI_BYTE, recv, static_cast<int>(part),
                  MPI_BYTE, comm->mpi);
    return ncclSuccess;
  });
}

ncclResult_t ncclBroadcast(const void* send, void* recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t /*stream*/) {
  const ncclResult_t made =
      Made({"ncclBroadcast", comm->name, static_cast<int64_t>(count), TypeName(type), "-", root});
  if (made != ncclSuccess) return made;
  return Run([=] {
    const auto bytes = static_cast<size_t>(BytesOf(type, count));
    if (comm->rank == root && send != recv) std::memcpy(recv, send, bytes);
    MPI_Bcast(recv, static_cast<int>(bytes), MPI_BYTE, root, comm->mpi);
    return ncclSuccess;
  });
}

ncclResult_t ncclAlltoAll(const void* send, void* recv, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t /*stream*/) {
  const ncclResult_t made =
      Made({"ncclAlltoAll", comm->name, static_cast<int64_t>(count), TypeName(type)});
  if (made != ncclSuccess) return made;
  const int64_t part = BytesOf(type, count), all = part * comm->size;
  if (Overlap(send, all, recv, all)) return Refuse("an exchange is not in place");
  return Run([=] {
    MPI_Alltoall(send, static_cast<int>(part), MPI_BYTE, recv, static_cast<int>(part), MPI_BYTE,
                 comm->mpi);
    return ncclSuccess;
  });
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t /*stream*/) {
  auto* bytes = static_cast<std::byte*>(const_cast<void*>(data));
  return AddMessage("ncclSend", {comm, bytes, BytesOf(type, count), peer, true}, count, type);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t /*stream*/) {
  return AddMessage("ncclRecv",
                    {comm, static_cast<std::byte*>(data), BytesOf(type, count), peer, false}, count,
                    type);
}
