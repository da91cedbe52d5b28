// A token file for whole runs of tiny models.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/keyed_random.h"
#include "runtime/token_file.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {

// `count` keyed random tokens in one document, written by rank 0; the others wait for it.
inline void WriteTinyTokenFile(const std::string& prefix, uint64_t count) {
  if (World()->rank() == 0) {
    const auto writer = TokenFileWriter::Create(prefix, 257);
    std::vector<int32_t> ids;
    for (uint64_t i = 0; i < count; ++i) {
      ids.push_back(static_cast<int32_t>(UniformAt({1, 2}, i) * 256));
    }
    EXPECT_TRUE(writer.ok() && (*writer)->Append(ids).ok() && (*writer)->EndDocument().ok() &&
                (*writer)->Finish().ok());
  }
  World()->Barrier();
}

}  // namespace hypermoe
