// One piece of work on a thread of its own, beside training.
#pragma once

#include <functional>
#include <future>
#include <stop_token>
#include <thread>

#include "runtime/status.h"

namespace hypermoe {

class BackgroundWork {
 public:
  // Starts `work`, which must own all that it uses, as it may outlive this object (see the
  // destructor). It should end soon, with any status, once a stop is requested. It must not use
  // LibTorch operators that run in parallel (see prefetcher.h), nor the communicators.
  explicit BackgroundWork(std::function<absl::Status(const std::stop_token&)> work);
  // Requests a stop and waits for the end, but for a few seconds only: work that a file system does
  // not let go must not keep a failing job from ending. It is then left to the end of the process.
  ~BackgroundWork();
  BackgroundWork(const BackgroundWork&) = delete;
  BackgroundWork& operator=(const BackgroundWork&) = delete;

  bool done() const;
  // Waits for the end. What the work returned, once; what it threw is thrown here.
  absl::Status Take();

 private:
  std::stop_source stop_;
  std::future<absl::Status> outcome_;
  std::thread thread_;
};

}  // namespace hypermoe
