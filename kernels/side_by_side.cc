#include "kernels/side_by_side.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <atomic>

namespace hypermoe {

void SideBySide(int64_t count, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // a setting of the thread
    for (; begin < end; ++begin) {
      for (int64_t i = next++; i < count; i = next++) body(i);
    }
  });
}

}  // namespace hypermoe
