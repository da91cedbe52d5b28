// Assembles the next batch on a thread of its own while the caller works on the last one.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "model/batch.h"

namespace hypermoe {

// Batches are numbered. What they hold does not depend on whether they were fetched ahead: `make`
// must be a function of the number alone. One batch is made ahead, so that two are in memory.
//
// `make` must not use LibTorch operators that run in parallel: a second thread that starts them
// gets an OpenMP team of its own, which would compete with the training step's. It may throw; the
// exception comes out of the Take that asks for that batch, and of no other.
class Prefetcher {
 public:
  explicit Prefetcher(std::function<Batch(int64_t)> make);
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  // Waits for at most the one batch that is being made.
  ~Prefetcher();

  // Batch `number` >= 0, from then on making number + 1. Any number may be asked for; only the
  // consecutive one is there early. For one caller at a time.
  Batch Take(int64_t number);

 private:
  void Work();

  const std::function<Batch(int64_t)> make_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Below: guarded by mutex_.
  int64_t wanted_ = -1;  // to be made next or being made; -1: nothing yet
  bool making_ = false;  // the thread works on `wanted_`
  bool ended_ = false;   // the thread must end
  int64_t made_ = -1;    // the number of the outcome below; -1: there is none
  std::optional<Batch> batch_;
  std::exception_ptr error_;  // if batch_ is empty
  std::thread thread_;        // last: it uses all of the above
};

}  // namespace hypermoe
