// The live line of a training run, on one rank.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>

namespace hypermoe {

// What one line says. NaN or nullopt: not known yet, shown as "-".
struct ProgressSample {
  int64_t step = 0;
  int64_t steps = 0;
  double loss = 0;
  std::optional<double> validation_loss;  // the latest
  std::string metric;  // a task's in the latest validation, "accuracy 91.28"; "": not shown
  double gradient_norm = 0;
  double tokens_per_second = 0;
  std::optional<double> mfu;      // model FLOPs utilisation; absent: "n/a", the peak is not known
  int64_t memory_bytes = 0;       // peak of the rank that has the most; 0: not known
  double load_max_over_mean = 0;  // of experts; 0 for a dense model, then not shown
  std::optional<double> dropped_share;  // of routed tokens; absent and not shown without a capacity
  double all_to_all_share = 0;          // of the step's time; not shown for a dense model
  int64_t skipped_steps = 0;            // so far; not shown if there are none
  double seconds_left = 0;
};

// "step  120/2000  loss 2.134  val 2.201  grad 0.53  98.1k tok/s  mfu 31.2%  mem 1.4G  load 1.31
// drop 0.4%  a2a 4.2%  skipped 2  eta 1m12s", in one line.
std::string FormatProgress(const ProgressSample& sample);

// Seconds as people read them: "8s", "1m12s", "3h05m", "2d04h"; "-" for NaN, infinity and less than
// 0.
std::string FormatDuration(double seconds);

// Shows samples: on a terminal it rewrites one line, at most four times a second and cut to the
// terminal's width; elsewhere (log files) it prints a line every ten seconds. The first sample and
// that of the last step are always shown.
class ProgressLine {
 public:
  // `seconds` is a clock that never goes back; empty: the steady clock.
  explicit ProgressLine(std::FILE* out, std::function<double()> seconds = {});
  ~ProgressLine();  // leaves the last line standing
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Show(const ProgressSample& sample);
  // Prints a whole line of its own above the live one.
  void Note(const std::string& text);

 private:
  void Draw();

  std::FILE* out_;
  std::function<double()> seconds_;
  bool terminal_;
  std::string
      live_line_;  // on a terminal, what stands there without a newline after it; "" for nothing
  double last_shown_;  // by the clock
};

}  // namespace hypermoe
