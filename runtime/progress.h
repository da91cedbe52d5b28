// The live line of a training run, on one rank.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace hypermoe {

// What one line says. NaN or nullopt: not known yet, shown as "-".
struct ProgressSample {
  int64_t step = 0;
  int64_t steps = 0;
  double loss = 0;
  std::optional<double> validation_loss;  // the latest
  double gradient_norm = 0;
  double tokens_per_second = 0;
  double load_max_over_mean = 0;  // of experts; 0 for a dense model, then not shown
  double all_to_all_share = 0;    // of the step's time; not shown for a dense model
  double seconds_left = 0;
};

// "step  120/2000  loss 2.134  val 2.201  grad 0.53  98.1k tok/s  load 1.31  a2a 4.2%  eta 1m12s"
std::string FormatProgress(const ProgressSample& sample);

// Seconds as people read them: "8s", "1m12s", "3h05m", "2d04h".
std::string FormatDuration(double seconds);

// Shows samples: on a terminal it rewrites one line a few times a second; elsewhere (log files) it prints a line every ten
// seconds or so and always the first and last step.
class ProgressLine {
 public:
  explicit ProgressLine(std::FILE* out);
  ~ProgressLine();  // leaves the last line standing
  void Show(const ProgressSample& sample);
  // Prints a whole line of its own above the live one.
  void Note(const std::string& text);

 private:
  std::FILE* out_;
  bool terminal_;
  bool line_open_ = false;
  double last_shown_ = -1e9;  // seconds, steady clock
};

}  // namespace hypermoe
