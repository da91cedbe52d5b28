// For tests that run in one program on several ranks. Every rank runs every test; collectives need
// all of them, so a test must not leave early on one rank only: EXPECT what may differ between
// ranks, ASSERT what is the same on all.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace hypermoe {

// All ranks that run this program. Valid while tests run.
const std::shared_ptr<Communicator>& World();

}  // namespace hypermoe
