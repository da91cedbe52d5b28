#include "runtime/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "parallel/steady_seconds.h"

namespace hypermoe {
namespace {

constexpr double kTerminalInterval = 0.25;  // seconds
constexpr double kLogInterval = 10;         // seconds
constexpr char kClearToEndOfLine[] = "\r\033[K";

std::string Fixed(double value, int decimals) {
  if (std::isnan(value)) return "-";
  // What a diverging run reaches would fill the line with digits.
  if (std::abs(value) >= 1e6) return absl::StrFormat("%.2e", value);
  return absl::StrFormat("%.*f", decimals, value);
}

std::string Rate(double per_second) {
  if (!std::isfinite(per_second)) return "-";
  if (per_second >= 999.95e3) return absl::StrFormat("%.2fM", per_second * 1e-6);
  if (per_second >= 999.5) return absl::StrFormat("%.1fk", per_second * 1e-3);
  return absl::StrFormat("%.0f", per_second);
}

std::string Percent(double share) { return std::isnan(share) ? "-" : Fixed(100 * share, 1) + "%"; }

// Binary units in one letter: "812M", "1.4G", "12G".
std::string Memory(int64_t bytes) {
  const double mebibytes = static_cast<double>(bytes) / (1 << 20);
  if (bytes <= 0) return "-";
  if (mebibytes < 999.5) return absl::StrFormat("%.0fM", mebibytes);
  return absl::StrFormat(mebibytes < 9.95 * 1024 ? "%.1fG" : "%.0fG", mebibytes / 1024);
}

// Columns of the terminal, or 0 if it does not tell.
size_t Columns(std::FILE* out) {
  winsize size = {};
  return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace

std::string FormatDuration(double seconds) {
  constexpr double kForever = 1e9;
  if (!(seconds >= 0) || seconds > kForever) return "-";
  const int64_t s = std::llround(seconds);
  if (s < 60) return absl::StrFormat("%ds", s);
  if (s < 3600) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  if (s < 86400) return absl::StrFormat("%dh%02dm", s / 3600, s / 60 % 60);
  return absl::StrFormat("%dd%02dh", s / 86400, s / 3600 % 24);
}

std::string FormatProgress(const ProgressSample& sample) {
  const std::string steps = absl::StrCat(sample.steps);
  std::string line =
      absl::StrFormat("step %*d/%s", static_cast<int>(steps.size()), sample.step, steps);
  const double validation =
      sample.validation_loss.value_or(std::numeric_limits<double>::quiet_NaN());
  absl::StrAppend(&line, "  loss ", Fixed(sample.loss, 3), "  val ", Fixed(validation, 3),
                  sample.metric.empty() ? "" : "  ", sample.metric, "  grad ", Fixed(sample.gradient_norm, 2), "  ", Rate(sample.tokens_per_second),
                  " tok/s  mfu ", sample.mfu ? Percent(*sample.mfu) : "n/a", "  mem ",
                  Memory(sample.memory_bytes));
  const bool sparse = sample.load_max_over_mean != 0;
  if (sparse) {
    absl::StrAppend(&line, "  load ", Fixed(sample.load_max_over_mean, 2));
    if (sample.dropped_share) absl::StrAppend(&line, "  drop ", Percent(*sample.dropped_share));
    absl::StrAppend(&line, "  a2a ", Percent(sample.all_to_all_share));
  }
  if (sample.skipped_steps > 0) absl::StrAppend(&line, "  skipped ", sample.skipped_steps);
  return absl::StrCat(line, "  eta ", FormatDuration(sample.seconds_left));
}

ProgressLine::ProgressLine(std::FILE* out, std::function<double()> seconds)
    : out_(out),
      seconds_(seconds ? std::move(seconds) : SteadySeconds),
      terminal_(isatty(fileno(out)) == 1),
      last_shown_(-std::numeric_limits<double>::infinity()) {}

ProgressLine::~ProgressLine() {
  if (live_line_.empty()) return;
  std::fputs("\n", out_);
  std::fflush(out_);
}

void ProgressLine::Show(const ProgressSample& sample) {
  const double now = seconds_();
  const double interval = terminal_ ? kTerminalInterval : kLogInterval;
  if (now - last_shown_ < interval && sample.step != sample.steps) return;
  last_shown_ = now;
  const std::string line = FormatProgress(sample);
  if (terminal_) {
    live_line_ = line;
    Draw();
  } else {
    std::fprintf(out_, "%s\n", line.c_str());
  }
  std::fflush(out_);
}

void ProgressLine::Note(const std::string& text) {
  std::fprintf(out_, "%s%s\n", live_line_.empty() ? "" : kClearToEndOfLine, text.c_str());
  if (!live_line_.empty()) Draw();
  std::fflush(out_);
}

void ProgressLine::Draw() {
  // A line that wraps could not be rewritten: the carriage return goes back to the start of its
  // last part only.
  const size_t columns = Columns(out_);
  const size_t width = columns > 1 ? columns - 1 : live_line_.size();
  std::fprintf(out_, "%s%s", kClearToEndOfLine, live_line_.substr(0, width).c_str());
}

}  // namespace hypermoe
