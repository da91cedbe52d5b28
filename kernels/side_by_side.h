// Work in pieces for all threads.
#pragma once

#include <cstdint>
#include <functional>

namespace hypermoe {

// Calls body(0), body(1), ..., body(count - 1), each once, by whichever thread is free; without
// autograd. Results do not depend on who takes a piece as long as it writes what no other does.
void SideBySide(int64_t count, const std::function<void(int64_t)>& body);

}  // namespace hypermoe
