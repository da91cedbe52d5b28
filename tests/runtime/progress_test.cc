#include "runtime/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;
using testing::Not;

ProgressSample Sample(int64_t step) {
  ProgressSample sample;
  sample.step = step;
  sample.steps = 2000;
  sample.loss = 2.1341;
  sample.validation_loss = 2.2009;
  sample.gradient_norm = 0.5349;
  sample.tokens_per_second = 98123;
  sample.mfu = 0.3123;
  sample.memory_bytes = int64_t{1434} << 20;
  sample.load_max_over_mean = 1.307;
  sample.dropped_share = 0.0041;
  sample.all_to_all_share = 0.0421;
  sample.seconds_left = 72;
  return sample;
}

TEST(FormatProgressTest, ShowsASparseModel) {
  EXPECT_EQ(FormatProgress(Sample(120)),
            "step  120/2000  loss 2.134  val 2.201  grad 0.53  98.1k tok/s  mfu 31.2%  mem 1.4G  "
            "load 1.31  drop 0.4%  a2a 4.2%  eta 1m12s");
}

TEST(FormatProgressTest, ShowsTheMetricOfATask) {
  ProgressSample sample = Sample(120);
  sample.metric = "accuracy 91.28";
  EXPECT_THAT(FormatProgress(sample), HasSubstr("val 2.201  accuracy 91.28  grad 0.53"));
}

TEST(FormatProgressTest, CountsSkippedSteps) {
  ProgressSample sample = Sample(120);
  EXPECT_THAT(FormatProgress(sample), Not(HasSubstr("skipped")));
  sample.skipped_steps = 3;
  EXPECT_THAT(FormatProgress(sample), HasSubstr("  skipped 3  eta 1m12s"));
}

TEST(FormatProgressTest, ShowsWhatIsUnknownAsDashes) {
  ProgressSample sample = Sample(1);
  const double nan = std::nan("");
  sample.validation_loss.reset();
  sample.memory_bytes = 0;
  sample.loss = sample.gradient_norm = sample.tokens_per_second = sample.all_to_all_share =
      sample.seconds_left = nan;
  sample.mfu = sample.dropped_share = nan;
  EXPECT_EQ(FormatProgress(sample),
            "step    1/2000  loss -  val -  grad -  - tok/s  mfu -  mem -  load 1.31  drop -  "
            "a2a -  eta -");
}

TEST(FormatProgressTest, SaysThatMfuIsNotAvailableAndNothingOfDropsWithoutCapacity) {
  ProgressSample sample = Sample(120);
  sample.mfu.reset();
  sample.dropped_share.reset();
  const std::string line = FormatProgress(sample);
  EXPECT_THAT(line, HasSubstr("tok/s  mfu n/a  mem 1.4G  load 1.31  a2a 4.2%"));
}

TEST(FormatProgressTest, LeavesExpertsOutForADenseModel) {
  ProgressSample sample = Sample(2000);
  sample.load_max_over_mean = 0;
  EXPECT_EQ(FormatProgress(sample),
            "step 2000/2000  loss 2.134  val 2.201  grad 0.53  98.1k tok/s  mfu 31.2%  mem 1.4G  "
            "eta 1m12s");
}

TEST(FormatProgressTest, ShowsMemoryInBinaryUnits) {
  ProgressSample sample = Sample(1);
  const auto memory = [&](double mebibytes) {
    sample.memory_bytes = static_cast<int64_t>(mebibytes * (1 << 20));
    const std::string line = FormatProgress(sample);
    const size_t begin = line.find("mem ") + 4;
    return line.substr(begin, line.find(' ', begin) - begin);
  };
  EXPECT_EQ(memory(0.4), "0M");
  EXPECT_EQ(memory(999.4), "999M");
  EXPECT_EQ(memory(999.6), "1.0G");
  EXPECT_EQ(memory(9.94 * 1024), "9.9G");
  EXPECT_EQ(memory(9.96 * 1024), "10G");
  EXPECT_EQ(memory(131.2 * 1024), "131G");
}

TEST(FormatProgressTest, KeepsExtremeNumbersShort) {
  ProgressSample sample = Sample(3);
  sample.loss = std::numeric_limits<double>::max();
  sample.gradient_norm = INFINITY;
  sample.tokens_per_second = 1234567;
  EXPECT_THAT(FormatProgress(sample),
              HasSubstr("loss 1.80e+308  val 2.201  grad inf  1.23M tok/s"));
  sample.tokens_per_second = 999.7;
  EXPECT_THAT(FormatProgress(sample), HasSubstr("  1.0k tok/s"));
  sample.tokens_per_second = 12.4;
  EXPECT_THAT(FormatProgress(sample), HasSubstr("  12 tok/s"));
}

TEST(FormatDurationTest, UsesTwoUnits) {
  EXPECT_EQ(FormatDuration(0), "0s");
  EXPECT_EQ(FormatDuration(8.4), "8s");
  EXPECT_EQ(FormatDuration(59.6), "1m00s");
  EXPECT_EQ(FormatDuration(72), "1m12s");
  EXPECT_EQ(FormatDuration(3 * 3600 + 5 * 60 + 59), "3h05m");
  EXPECT_EQ(FormatDuration(2 * 86400 + 4 * 3600), "2d04h");
  EXPECT_EQ(FormatDuration(-1), "-");
  EXPECT_EQ(FormatDuration(std::nan("")), "-");
  EXPECT_EQ(FormatDuration(INFINITY), "-");
}

class ProgressLineTest : public testing::Test {
 protected:
  std::function<double()> Clock() {
    return [this] { return now_; };
  }
  double now_ = 1000;
};

TEST_F(ProgressLineTest, InAFileALineEveryTenSecondsAndTheFirstAndLast) {
  const TemporaryFolder folder;
  std::FILE* out = std::fopen((folder / "log").c_str(), "w");
  {
    ProgressLine line(out, Clock());
    for (const int64_t step : {1, 2, 3, 4, 1999, 2000}) {
      line.Show(Sample(step));
      now_ += step == 3 ? 9 : 1;  // shown at 0 s; not at 1, 2; then at 11
      if (step == 1) line.Note("saved");
    }
  }
  std::fclose(out);
  const std::string text = ReadFile(folder / "log");
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_EQ(text, FormatProgress(Sample(1)) + "\nsaved\n" + FormatProgress(Sample(4)) + "\n" +
                      FormatProgress(Sample(2000)) + "\n");
}

// What a terminal of `columns` received; its line discipline turns "\n" into "\r\n".
class Terminal {
 public:
  explicit Terminal(unsigned short columns) {
    winsize size = {24, columns, 0, 0};
    EXPECT_EQ(openpty(&master_, &slave_, nullptr, nullptr, &size), 0);
    fcntl(master_, F_SETFL, O_NONBLOCK);
    out_ = fdopen(slave_, "w");
  }
  ~Terminal() {
    std::fclose(out_);
    close(master_);
  }
  std::FILE* out() { return out_; }
  std::string Received() {
    std::string text;
    char bytes[4096];
    for (ssize_t count; (count = read(master_, bytes, sizeof(bytes))) > 0;)
      text.append(bytes, count);
    return text;
  }

 private:
  int master_ = -1, slave_ = -1;
  std::FILE* out_ = nullptr;
};

TEST_F(ProgressLineTest, OnATerminalOneLineAtMostFourTimesASecond) {
  Terminal terminal(200);
  const std::string clear = "\r\033[K";
  {
    ProgressLine line(terminal.out(), Clock());
    line.Show(Sample(1));
    EXPECT_EQ(terminal.Received(), clear + FormatProgress(Sample(1)));
    now_ += 0.2;
    line.Show(Sample(2));
    EXPECT_EQ(terminal.Received(), "");
    now_ += 0.06;
    line.Show(Sample(3));
    EXPECT_EQ(terminal.Received(), clear + FormatProgress(Sample(3)));
    line.Note("saved");
    EXPECT_EQ(terminal.Received(), clear + "saved\r\n" + clear + FormatProgress(Sample(3)));
    line.Show(Sample(2000));
    EXPECT_EQ(terminal.Received(), clear + FormatProgress(Sample(2000)));
  }
  EXPECT_EQ(terminal.Received(), "\r\n");
}

TEST_F(ProgressLineTest, OnANarrowTerminalTheLineIsCut) {
  Terminal terminal(20);
  ProgressLine line(terminal.out(), Clock());
  line.Show(Sample(1));
  EXPECT_EQ(terminal.Received(), "\r\033[K" + FormatProgress(Sample(1)).substr(0, 19));
}

TEST_F(ProgressLineTest, ANoteBeforeTheFirstSampleStandsAlone) {
  Terminal terminal(80);
  {
    ProgressLine line(terminal.out(), Clock());
    line.Note("resumed");
  }
  EXPECT_EQ(terminal.Received(), "resumed\r\n");
}

}  // namespace
}  // namespace hypermoe
