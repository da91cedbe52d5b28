// How long a counter has stood still, in the eyes of one who looks at it now and then.
#pragma once

#include <algorithm>
#include <cstdint>

namespace hypermoe {

// Of the time between two looks at most `longest_gap` seconds count: a watcher that was itself held
// for longer (its process stopped, its file system away) has not seen what happened meanwhile.
class Stillness {
 public:
  explicit Stillness(double longest_gap) : longest_gap_(longest_gap) {}

  // Looks at `counter` (not negative) at time `now`, in seconds of the steady clock of this
  // process; how long it has stood still. The first look gives 0.
  double Observe(int64_t counter, double now) {
    if (counter_ != counter) {
      counter_ = counter;
      seconds_ = 0;
    } else {
      seconds_ += std::min(now - last_, longest_gap_);
    }
    last_ = now;
    return seconds_;
  }

 private:
  double longest_gap_;
  int64_t counter_ = -1;  // none yet
  double seconds_ = 0, last_ = 0;
};

}  // namespace hypermoe
