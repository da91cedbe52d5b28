#include "kernels/side_by_side.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

TEST(SideBySideTest, MakesEveryPieceOnceWithoutAutograd) {
  const ThreadsScope threads(2);
  std::vector<int> made(1000, 0);
  std::atomic<int> with_autograd = 0;
  SideBySide(1000, [&](int64_t i) {
    ++made[static_cast<size_t>(i)];
    if (at::GradMode::is_enabled()) ++with_autograd;
  });
  EXPECT_EQ(made, std::vector<int>(1000, 1));
  EXPECT_EQ(with_autograd, 0);
  EXPECT_TRUE(at::GradMode::is_enabled());
  SideBySide(0, [](int64_t) { FAIL(); });
}

// Two pieces that wait for each other end only if two threads are at work. LibTorch's loop, which
// other kernels use directly, takes one where a program is built without OpenMP.
TEST(SideBySideTest, TakesSeveralThreads) {
  const ThreadsScope threads(2);
  std::atomic<int> started = 0, met = 0;
  SideBySide(2, [&](int64_t) {
    ++started;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (started < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    if (started == 2) ++met;
  });
  // The second of a single thread would see both started, the first would not.
  EXPECT_EQ(met, 2);
}

}  // namespace
}  // namespace hypermoe
