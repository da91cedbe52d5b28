#include "runtime/rate_progress.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "parallel/steady_seconds.h"
#include "runtime/progress.h"

namespace hypermoe {
namespace {

constexpr double kSecondsBetweenUpdates = 0.3;  // of a terminal's line
constexpr double kSecondsBetweenLines = 10;     // elsewhere

}  // namespace

RateProgress::RateProgress(std::FILE* out, const std::string& task, int64_t total,
                           const CountedUnit& unit)
    : out_(out),
      task_(task),
      total_(total),
      unit_(unit),
      terminal_(out != nullptr && isatty(fileno(out)) != 0),
      begin_(SteadySeconds()),
      shown_(begin_) {}

RateProgress::~RateProgress() {
  if (line_open_) std::fputc('\n', out_);
}

double RateProgress::seconds() const { return SteadySeconds() - begin_; }

void RateProgress::Update(int64_t done) {
  const double now = SteadySeconds();
  if (out_ == nullptr || now - shown_ < (terminal_ ? kSecondsBetweenUpdates : kSecondsBetweenLines))
    return;
  shown_ = now;
  const double rate = static_cast<double>(done) / (now - begin_);
  const auto amount = [&](int64_t count) {
    return absl::StrFormat("%.*f", unit_.decimals, static_cast<double>(count) / unit_.size);
  };
  std::string text = absl::StrCat(task_, ": ", amount(done));
  if (total_ > 0) absl::StrAppend(&text, " of ", amount(total_));
  absl::StrAppendFormat(&text, " %s  %.1f %s/s", unit_.name, rate / unit_.size, unit_.name);
  if (total_ > 0 && rate > 0) {
    absl::StrAppend(&text, "  eta ", FormatDuration(static_cast<double>(total_ - done) / rate));
  }
  std::fprintf(out_, terminal_ ? "\r%s\033[K" : "%s\n", text.c_str());
  std::fflush(out_);
  line_open_ = terminal_;
}

}  // namespace hypermoe
