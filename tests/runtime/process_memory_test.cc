#include "runtime/process_memory.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <memory>
#include <vector>

namespace hypermoe {
namespace {

TEST(ReadProcessMemoryTest, CountsWhatIsTouchedAndRemembersThePeak) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  const ProcessMemory before = ReadProcessMemory();
  ASSERT_GT(before.resident, 1 << 20);
  {
    const auto block = std::make_unique<char[]>(kBytes);  // zeroed, so touched
    EXPECT_NEAR(static_cast<double>(ReadProcessMemory().resident - before.resident), kBytes,
                0.1 * kBytes);
    EXPECT_EQ(block[kBytes - 1], 0);
  }
  const ProcessMemory after = ReadProcessMemory();
  EXPECT_LT(after.resident, before.resident + kBytes / 2);
  EXPECT_GE(after.peak_resident, before.resident + kBytes * 9 / 10);
}

class UseMallocForTensorsTest : public testing::Test {
 protected:
  // The process keeps it afterwards: the same tensors at other addresses.
  void SetUp() override { UseMallocForTensors(); }
};

TEST_F(UseMallocForTensorsTest, TensorsAreAlignedAndKeepTheirValues) {
  std::vector<at::Tensor> tensors;
  for (int64_t size = 0; size < 200; ++size) tensors.push_back(at::arange(size, at::kShort));
  for (int64_t size = 1; size < 200; ++size) {
    const auto* values = tensors[size].const_data_ptr<int16_t>();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(values) % 64, 0) << size;
    EXPECT_EQ(values[0], 0) << size;
    EXPECT_EQ(values[size - 1], size - 1);
  }
  EXPECT_EQ(at::empty({0, 3}).numel(), 0);
}

TEST_F(UseMallocForTensorsTest, RawMemoryCanBeTakenAndReturned) {
  void* data = c10::GetCPUAllocator()->raw_allocate(1000);
  std::memset(data, 7, 1000);
  c10::GetCPUAllocator()->raw_deallocate(data);
}

TEST_F(UseMallocForTensorsTest, ExhaustionIsAnErrorThatSaysHowMuch) {
  try {
    at::empty({int64_t{1} << 50}, at::kByte);
    FAIL() << "a petabyte was allocated";
  } catch (const c10::OutOfMemoryError& error) {
    EXPECT_NE(error.msg().find("1125899906842624 bytes"), std::string::npos) << error.msg();
  }
}

TEST(LimitKernelCachesTest, LeavesWhatTheEnvironmentSays) {
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7", 1);
  unsetenv("LRU_CACHE_CAPACITY");
  LimitKernelCaches();
  EXPECT_STREQ(getenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY"), "7");
  EXPECT_STREQ(getenv("LRU_CACHE_CAPACITY"), "64");
}

}  // namespace
}  // namespace hypermoe
