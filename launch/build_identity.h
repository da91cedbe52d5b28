// Which build of the program this process is, in words that two builds have alike only if they
// compute alike.
#pragma once

#include <string>
#include <vector>

#include "runtime/handshake.h"
#include "runtime/status.h"

namespace hypermoe {

// "12.2.0, C++ 202002".
std::string CompilerVersion();

// "compiled 2.11.0, running 2.11.0": LibTorch is a shared library, and may be another one than was
// compiled against.
std::string TorchVersions();

// Hash of the content of this process's program file.
absl::StatusOr<std::string> ProgramHash();

// All of these, for CheckAlike.
absl::StatusOr<std::vector<SharedFact>> BuildFacts();

// What this machine calls itself.
std::string HostName();

}  // namespace hypermoe
