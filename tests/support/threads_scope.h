// LibTorch's number of threads, for the life of an object.
#pragma once

#include <ATen/Parallel.h>

namespace hypermoe {

class ThreadsScope {
 public:
  explicit ThreadsScope(int threads) { at::set_num_threads(threads); }
  ~ThreadsScope() { at::set_num_threads(before_); }
  ThreadsScope(const ThreadsScope&) = delete;
  ThreadsScope& operator=(const ThreadsScope&) = delete;

 private:
  // Initialised before the constructor's body runs.
  int before_ = at::get_num_threads();
};

}  // namespace hypermoe
