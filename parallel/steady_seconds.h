// The one clock that durations are measured with.
#pragma once

#include <chrono>

namespace hypermoe {

// Seconds of the steady clock, which never goes back; from where it counts is up to the machine.
inline double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace hypermoe
