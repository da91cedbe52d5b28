#include "launch/run_guarded.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Message(const Outcome& outcome) { return std::string(outcome.status.message()); }

TEST(RunGuardedTest, PassesOnWhatTheBodyReturns) {
  const Outcome good = RunGuarded([] { return absl::OkStatus(); });
  EXPECT_TRUE(good.status.ok());
  EXPECT_FALSE(good.thrown);
  const Outcome bad = RunGuarded([] { return DataError("torn"); });
  EXPECT_EQ(ExitCodeOf(bad.status), ExitCode::kBadData);
  EXPECT_EQ(Message(bad), "torn");
  EXPECT_FALSE(bad.thrown);
}

TEST(RunGuardedTest, CommErrorIsACommunicationError) {
  const Outcome outcome = RunGuarded([]() -> absl::Status { throw CommError("rank 3 is gone"); });
  EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kCommunication);
  EXPECT_EQ(Message(outcome), "rank 3 is gone");
  EXPECT_TRUE(outcome.thrown);
}

TEST(RunGuardedTest, LibTorchErrorKeepsItsMessageWithoutTheStack) {
  const Outcome outcome = RunGuarded([]() -> absl::Status {
    TORCH_CHECK(false, "expected 4 rows, got ", 5);
    return absl::OkStatus();
  });
  EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kInternal);
  EXPECT_EQ(Message(outcome), "expected 4 rows, got 5");
  EXPECT_TRUE(outcome.thrown);
}

TEST(RunGuardedTest, ExhaustedMemorySaysWhatToDo) {
  const Outcome outcome = RunGuarded([]() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kInternal);
  EXPECT_THAT(Message(outcome), HasSubstr("train.micro_batches"));
  // What LibTorch's allocator throws.
  const Outcome torch = RunGuarded([]() -> absl::Status {
    TORCH_CHECK(false,
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes.");
    return absl::OkStatus();
  });
  EXPECT_THAT(Message(torch), HasSubstr("train.micro_batches"));
  EXPECT_THAT(Message(torch), HasSubstr("5 bytes"));
}

TEST(RunGuardedTest, AccessToAMissingValueKeepsItsStatus) {
  const Outcome outcome = RunGuarded([] {
    const absl::StatusOr<int> missing = IoError("disk full");
    return missing.value() > 0 ? absl::OkStatus() : absl::UnknownError("");
  });
  EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kIo);
  EXPECT_EQ(Message(outcome), "disk full");
  EXPECT_TRUE(outcome.thrown);
}

TEST(RunGuardedTest, OtherExceptionsAreInternalErrors) {
  const Outcome standard = RunGuarded([]() -> absl::Status { throw std::out_of_range("index 7"); });
  EXPECT_EQ(ExitCodeOf(standard.status), ExitCode::kInternal);
  EXPECT_EQ(Message(standard), "index 7");
  const Outcome strange = RunGuarded([]() -> absl::Status { throw 7; });
  EXPECT_EQ(ExitCodeOf(strange.status), ExitCode::kInternal);
  EXPECT_TRUE(strange.thrown);
}

}  // namespace
}  // namespace hypermoe
