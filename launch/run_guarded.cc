#include "launch/run_guarded.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <system_error>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {
namespace {

absl::Status OutOfMemory(const char* detail) {
  return InternalError(
      absl::StrCat("memory ran out on this rank (", detail,
                   "): use more train.micro_batches, a smaller train.batch_size or fewer ranks on "
                   "this machine"));
}

}  // namespace

Outcome RunGuarded(const std::function<absl::Status()>& body) {
  try {
    return {body(), false};
  } catch (const CommError& error) {
    return {CommunicationError(error.what()), true};
  } catch (const c10::OutOfMemoryError& error) {
    return {OutOfMemory(error.what_without_backtrace()), true};
  } catch (const c10::Error& error) {
    const absl::string_view message = error.what_without_backtrace();
    // LibTorch's CPU allocator reports exhaustion as a plain c10::Error.
    if (absl::StrContains(message, "DefaultCPUAllocator"))
      return {OutOfMemory(error.what_without_backtrace()), true};
    return {InternalError(std::string(message)), true};
  } catch (const std::bad_alloc& error) {
    return {OutOfMemory(error.what()), true};
  } catch (const std::system_error& error) {
    return {IoError(error.what()), true};
  } catch (const absl::BadStatusOrAccess& error) {
    return {error.status(), true};
  } catch (const std::exception& error) {
    return {InternalError(error.what()), true};
  } catch (...) {
    return {InternalError("an exception of unknown type reached the command"), true};
  }
}

}  // namespace hypermoe
