// The errors that a user meets and the exit codes they end with. Functions of runtime and launch
// return absl::Status; its code says which of these kinds an error is, its message what failed, the
// value got, what was expected and what to do.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hypermoe {

// Documented in the README; unchanged from release to release.
enum class ExitCode : int {
  kOk = 0,
  kUsage = 64,          // wrong command line
  kBadData = 65,        // malformed text, token file, checkpoint or model; golden values not met
  kInternal = 70,       // a defect of this program, or numbers gone wrong
  kCommunication = 71,  // MPI failed, or another rank is gone
  kHang = 72,           // a rank made no progress (runtime.hang_seconds)
  kIo = 74,             // a file could not be read or written
  kStopped = 75,        // stopped before the end on request; resume goes on
  kConfig = 78,         // a configuration that cannot be run
};

absl::Status UsageError(const std::string& message);
absl::Status ConfigError(const std::string& message);
absl::Status DataError(const std::string& message);
absl::Status IoError(const std::string& message);
absl::Status InternalError(const std::string& message);
absl::Status CommunicationError(const std::string& message);
absl::Status Stopped(const std::string& message);

// The exit code of the kind of `status`; a status made elsewhere counts as internal.
ExitCode ExitCodeOf(const absl::Status& status);

}  // namespace hypermoe

#define HYPERMOE_CONCAT_(a, b) a##b
#define HYPERMOE_CONCAT(a, b) HYPERMOE_CONCAT_(a, b)

// Returns from the calling function if `expression`, an absl::Status, is an error.
#define RETURN_IF_ERROR(expression)                           \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

// Declares or assigns `target` from `expression`, an absl::StatusOr, or returns its error.
#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_(HYPERMOE_CONCAT(status_or_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_(result, target, expression) \
  auto result = (expression);                         \
  if (!result.ok()) return result.status();           \
  target = *std::move(result)
