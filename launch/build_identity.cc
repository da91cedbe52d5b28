#include "launch/build_identity.h"

#include <ATen/Version.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

// What LibTorch itself says that it is.
std::string RunningTorch() {
  const std::string text = at::show_config();
  const std::string mark = "TORCH_VERSION=";
  const size_t begin = text.find(mark);
  if (begin == std::string::npos) return "unknown";
  return text.substr(begin + mark.size(), text.find(',', begin) - begin - mark.size());
}

}  // namespace

std::string CompilerVersion() { return absl::StrCat(__VERSION__, ", C++ ", __cplusplus); }

std::string TorchVersions() {
  return absl::StrCat("compiled ", TORCH_VERSION, ", running ", RunningTorch());
}

absl::StatusOr<std::string> ProgramHash() {
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> program,
                   MappedFile::Open("/proc/self/exe"));
  return DigestOf(program->data(), program->size()).xxh3_128;
}

absl::StatusOr<std::vector<SharedFact>> BuildFacts() {
  ASSIGN_OR_RETURN(const std::string program, ProgramHash());
  const std::string remedy = "install the same build on all machines";
  // The program's hash last: where it differs for one of the others, that says more.
  return std::vector<SharedFact>{{"the compiler", CompilerVersion(), remedy},
                                 {"LibTorch", TorchVersions(), remedy},
                                 {"the program (hash of its file)", program, remedy}};
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace hypermoe
