#include "runtime/status.h"

namespace hypermoe {
namespace {

// One absl code per kind, so that a kind survives wherever a Status travels.
constexpr absl::StatusCode kUsageCode = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kConfigCode = absl::StatusCode::kFailedPrecondition;
constexpr absl::StatusCode kDataCode = absl::StatusCode::kDataLoss;
constexpr absl::StatusCode kIoCode = absl::StatusCode::kUnavailable;
constexpr absl::StatusCode kCommunicationCode = absl::StatusCode::kAborted;
constexpr absl::StatusCode kStoppedCode = absl::StatusCode::kCancelled;

}  // namespace

absl::Status UsageError(const std::string& message) { return {kUsageCode, message}; }
absl::Status ConfigError(const std::string& message) { return {kConfigCode, message}; }
absl::Status DataError(const std::string& message) { return {kDataCode, message}; }
absl::Status IoError(const std::string& message) { return {kIoCode, message}; }
absl::Status InternalError(const std::string& message) { return absl::InternalError(message); }
absl::Status CommunicationError(const std::string& message) {
  return {kCommunicationCode, message};
}
absl::Status Stopped(const std::string& message) { return {kStoppedCode, message}; }

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case kUsageCode:
      return ExitCode::kUsage;
    case kConfigCode:
      return ExitCode::kConfig;
    case kDataCode:
      return ExitCode::kBadData;
    case kIoCode:
      return ExitCode::kIo;
    case kCommunicationCode:
      return ExitCode::kCommunication;
    case kStoppedCode:
      return ExitCode::kStopped;
    default:
      return ExitCode::kInternal;
  }
}

}  // namespace hypermoe
