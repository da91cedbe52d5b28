#include "runtime/prefetcher.h"

#include <utility>

namespace hypermoe {

Prefetcher::Prefetcher(std::function<Batch(int64_t)> make)
    : make_(std::move(make)), thread_([this] { Work(); }) {}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Batch Prefetcher::Take(int64_t number) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (wanted_ != number) {
    // Not the consecutive one: what is being made is of no use, but has to end first.
    changed_.wait(lock, [this] { return !making_; });
    wanted_ = number;
    made_ = -1;
    changed_.notify_all();
  }
  changed_.wait(lock, [this, number] { return made_ == number; });
  std::optional<Batch> batch = std::move(batch_);
  const std::exception_ptr error = std::exchange(error_, nullptr);
  batch_.reset();
  made_ = -1;
  if (error != nullptr) {
    wanted_ = -1;  // a later Take of the same number tries again
    std::rethrow_exception(error);
  }
  wanted_ = number + 1;
  lock.unlock();
  changed_.notify_all();
  return *std::move(batch);
}

void Prefetcher::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ended_ || (wanted_ >= 0 && made_ != wanted_); });
    if (ended_) return;
    const int64_t number = wanted_;
    making_ = true;
    lock.unlock();
    std::optional<Batch> batch;
    std::exception_ptr error;
    try {
      batch = make_(number);
    } catch (...) {
      error = std::current_exception();  // rethrown by Take
    }
    lock.lock();
    making_ = false;
    made_ = number;
    batch_ = std::move(batch);
    error_ = error;
    changed_.notify_all();
  }
}

}  // namespace hypermoe
