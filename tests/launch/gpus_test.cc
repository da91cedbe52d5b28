#include "launch/gpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/status.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

GpuInventory Gpus(int count) {
  GpuInventory gpus;
  gpus.built_with_cuda = true;
  gpus.driver_version = 13000;
  gpus.toolkit_version = 13000;
  gpus.count = count;
  return gpus;
}

MeshConfig Mesh(MeshConfig::GpuTransport transport) {
  MeshConfig mesh;
  mesh.set_device(MeshConfig::cuda);
  mesh.set_gpu_transport(transport);
  return mesh;
}

TEST(ChooseGpuTest, RanksOfAMachineTakeOneEach) {
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(*ChooseGpu(Mesh(MeshConfig::nccl), Gpus(8), {rank, 4}), rank);
  }
}

TEST(ChooseGpuTest, HostStagedRanksShareThem) {
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(*ChooseGpu(Mesh(MeshConfig::host_staged), Gpus(1), {rank, 4}), 0);
    EXPECT_EQ(*ChooseGpu(Mesh(MeshConfig::host_staged), Gpus(3), {rank, 4}), rank % 3);
  }
}

void ExpectError(const absl::StatusOr<int>& gpu, const testing::Matcher<std::string>& message) {
  ASSERT_FALSE(gpu.ok()) << "GPU " << *gpu;
  EXPECT_EQ(ExitCodeOf(gpu.status()), ExitCode::kConfig);
  EXPECT_THAT(std::string(gpu.status().message()), message);
}

TEST(ChooseGpuTest, MoreRanksThanGpusIsAnErrorWithNccl) {
  ExpectError(ChooseGpu(Mesh(MeshConfig::nccl), Gpus(2), {0, 4}),
              AllOf(HasSubstr("2 GPUs for 4 ranks"), HasSubstr("mesh.gpu_transport=host_staged")));
}

TEST(ChooseGpuTest, NoGpuNamesDriverToolkitAndCount) {
  GpuInventory gpus = Gpus(0);
  gpus.driver_version = 0;
  gpus.problem = "CUDA driver version is insufficient for CUDA runtime version";
  for (const auto transport : {MeshConfig::nccl, MeshConfig::host_staged}) {
    ExpectError(ChooseGpu(Mesh(transport), gpus, {0, 1}),
                AllOf(HasSubstr("GPUs: 0"), HasSubstr("CUDA 13.0"), HasSubstr("driver none"),
                      HasSubstr(gpus.problem), HasSubstr("mesh.device=cpu")));
  }
}

TEST(ChooseGpuTest, ProgramForCpusSaysWhichOneToStart) {
  ExpectError(ChooseGpu(Mesh(MeshConfig::nccl), GpuInventory(), {0, 1}),
              HasSubstr("start hypermoe-cuda"));
}

TEST(GpuTextTest, SaysWhatThereIs) {
  GpuInventory gpus = Gpus(8);
  EXPECT_EQ(GpuText(gpus), "8; CUDA 13.0, driver for CUDA 13.0");
  gpus.name = "NVIDIA H200";
  EXPECT_EQ(GpuText(gpus), "8 x NVIDIA H200; CUDA 13.0, driver for CUDA 13.0");
  EXPECT_EQ(GpuText(GpuInventory()), "none used: this program is for CPUs");
}

// Of the program that runs this.
TEST(FindGpusTest, NeverCountsWithoutCuda) {
  const GpuInventory gpus = FindGpus();
  if (gpus.built_with_cuda) {
    EXPECT_GE(gpus.toolkit_version, 12000);
    EXPECT_EQ(gpus.count == 0, !gpus.problem.empty()) << GpuText(gpus);
  } else {
    EXPECT_EQ(gpus.count, 0);
  }
}

}  // namespace
}  // namespace hypermoe
