// The live line of work that is counted: "prepare: 45.2 of 120.0 MB  38.1 MB/s  eta 2s".
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace hypermoe {

// What is counted, and how it is written.
struct CountedUnit {
  std::string name;  // "MB"
  double size = 1;   // of one, in what is counted
  int decimals = 0;  // of amounts
};

// On a terminal it rewrites one line, elsewhere (log files) it prints one every ten seconds.
class RateProgress {
 public:
  // Nothing is shown if `out` is null. `total` 0: not known.
  RateProgress(std::FILE* out, const std::string& task, int64_t total, const CountedUnit& unit);
  ~RateProgress();  // leaves the last line standing
  RateProgress(const RateProgress&) = delete;
  RateProgress& operator=(const RateProgress&) = delete;

  void Update(int64_t done);
  double seconds() const;  // since the construction

 private:
  std::FILE* out_;
  std::string task_;
  int64_t total_;
  CountedUnit unit_;
  bool terminal_, line_open_ = false;
  double begin_, shown_;
};

}  // namespace hypermoe
