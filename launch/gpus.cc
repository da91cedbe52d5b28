#include "launch/gpus.h"

#include <ATen/Context.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "launch/build_identity.h"
#include "parallel/host_staged_communicator.h"
#include "parallel/nccl_communicator.h"
#include "runtime/agreement.h"
#include "runtime/status.h"

namespace hypermoe {
namespace {

// "13.0" of 13000.
std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// The same bits in every run, as on CPUs: LibTorch's fused attention adds in no order in backward
// unless it is told so. Before the first tensor is made on a GPU.
void MakeGpusDeterministic() {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // which it demands then
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // That would also fill all memory before its first use.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

}  // namespace

std::string GpuText(const GpuInventory& gpus) {
  if (!gpus.built_with_cuda) return "none used: this program is for CPUs";
  return absl::StrCat(gpus.count, gpus.name.empty() ? "" : " x ", gpus.name, "; CUDA ",
                      VersionText(gpus.toolkit_version), ", driver ",
                      gpus.driver_version == 0
                          ? "none"
                          : absl::StrCat("for CUDA ", VersionText(gpus.driver_version)),
                      gpus.problem.empty() ? "" : absl::StrCat("; ", gpus.problem));
}

absl::StatusOr<int> ChooseGpu(const MeshConfig& mesh, const GpuInventory& gpus,
                              const MachinePlace& place) {
  if (!gpus.built_with_cuda) {
    return ConfigError(
        "mesh.device is cuda, but this program is for CPUs: start hypermoe-cuda, which "
        "launch/setup "
        "-DHYPERMOE_CUDA=ON builds beside it, or set mesh.device=cpu");
  }
  if (gpus.count == 0) {
    return ConfigError(absl::StrCat("mesh.device is cuda, but ", HostName(),
                                    " has no GPU that CUDA can use (GPUs: ", GpuText(gpus),
                                    "): install or update the driver, make a GPU visible, or set "
                                    "mesh.device=cpu"));
  }
  if (mesh.gpu_transport() == MeshConfig::host_staged) return place.rank % gpus.count;
  if (place.size > gpus.count) {
    return ConfigError(absl::StrCat(
        HostName(), " has ", gpus.count, gpus.count == 1 ? " GPU" : " GPUs", " for ", place.size,
        " ranks: start at most as many ranks on a machine as it has GPUs, or set "
        "mesh.gpu_transport=host_staged, with which ranks may share one"));
  }
  return place.rank;
}

absl::StatusOr<std::shared_ptr<Communicator>> WorldOnDevice(std::shared_ptr<Communicator> world,
                                                            const MeshConfig& mesh) {
  if (mesh.device() == MeshConfig::cpu) return world;
  const absl::StatusOr<int> gpu = ChooseGpu(mesh, FindGpus(), RankOnMachine());
  RETURN_IF_ERROR(Agree(*world, gpu.status()));
  MakeGpusDeterministic();
  UseGpu(*gpu);
  std::unique_ptr<Communicator> host = world->Split("world", /*color=*/0, /*key=*/world->rank());
  if (mesh.gpu_transport() == MeshConfig::host_staged) {
    return std::shared_ptr<Communicator>(NewHostStagedCommunicator(
        std::move(host), at::Device(at::kCUDA, static_cast<at::DeviceIndex>(*gpu))));
  }
  return std::shared_ptr<Communicator>(NewNcclCommunicator(std::move(host)));
}

}  // namespace hypermoe
