#include "runtime/metrics_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

std::vector<json> Lines(const std::string& path) {
  std::vector<json> lines;
  std::istringstream text(ReadFile(path));
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  return lines;
}

std::vector<int> Steps(const std::string& path) {
  std::vector<int> steps;
  for (const json& line : Lines(path)) steps.push_back(line["step"]);
  return steps;
}

std::unique_ptr<MetricsLog> OpenLog(const TemporaryFolder& folder, int64_t last_step) {
  auto log = MetricsLog::Open(folder.path(), last_step);
  EXPECT_TRUE(log.ok()) << log.status();
  return log.ok() ? *std::move(log) : nullptr;
}

TEST(MetricsLogTest, NumbersReadBackExactly) {
  const TemporaryFolder folder;
  const auto log = OpenLog(folder, 0);
  std::mt19937_64 random(1);
  std::vector<double> numbers = {0.1,
                                 -0.0,
                                 1e300,
                                 std::numeric_limits<double>::denorm_min(),
                                 std::numeric_limits<double>::max(),
                                 1.0 / 3,
                                 static_cast<float>(0.1f),
                                 5};
  while (numbers.size() < 1000) {
    const uint64_t bits = random();
    double number;
    std::memcpy(&number, &bits, sizeof(number));
    if (std::isfinite(number)) numbers.push_back(number);
  }
  for (const double number : numbers)
    ASSERT_TRUE(log->Write({{"kind", "train"}, {"step", 1}, {"loss", number}}).ok());
  const std::vector<json> lines = Lines(log->path());
  ASSERT_EQ(lines.size(), numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double read = lines[i]["loss"].get<double>();
    EXPECT_EQ(std::memcmp(&read, &numbers[i], sizeof(read)), 0) << numbers[i];
  }
}

TEST(MetricsLogTest, WritesNanAndInfinityAsNull) {
  const TemporaryFolder folder;
  const auto log = OpenLog(folder, 0);
  ASSERT_TRUE(
      log->Write({{"kind", "train"}, {"step", 1}, {"loss", std::nan("")}, {"grad_norm", INFINITY}})
          .ok());
  const json line = Lines(log->path()).at(0);
  EXPECT_TRUE(line["loss"].is_null());
  EXPECT_TRUE(line["grad_norm"].is_null());
}

TEST(MetricsLogTest, EveryLineIsInTheFileAtOnce) {
  const TemporaryFolder folder;
  const auto log = OpenLog(folder, 0);
  EXPECT_EQ(log->path(), folder / "metrics.jsonl");
  for (int step = 1; step <= 3; ++step) {
    ASSERT_TRUE(log->Write({{"kind", "train"}, {"step", step}}).ok());
    EXPECT_EQ(Steps(log->path()).size(), static_cast<size_t>(step));
  }
}

TEST(MetricsLogTest, ResumeDropsLaterStepsAndATornLine) {
  const TemporaryFolder folder;
  WriteFile(folder / "metrics.jsonl",
            "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"train\",\"step\":2}\n{\"kind\":"
            "\"validation\",\"step\":2}\n"
            "{\"kind\":\"train\",\"step\":3}\n{\"kind\":\"train\",\"st");
  const auto log = OpenLog(folder, 2);
  ASSERT_NE(log, nullptr);
  EXPECT_EQ(Steps(log->path()), (std::vector<int>{1, 2, 2}));
  EXPECT_EQ(log->kept().step, 2);
  EXPECT_EQ(log->kept().kind, "validation");
  ASSERT_TRUE(log->Write({{"kind", "train"}, {"step", 3}}).ok());
  EXPECT_EQ(Steps(log->path()), (std::vector<int>{1, 2, 2, 3}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1)
      << "something was left beside the log";
}

TEST(MetricsLogTest, KeepsALastLineThatOnlyLacksItsEnd) {
  const TemporaryFolder folder;
  WriteFile(folder / "metrics.jsonl",
            "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"train\",\"step\":2}");
  const auto log = OpenLog(folder, 2);
  ASSERT_NE(log, nullptr);
  EXPECT_EQ(log->kept().kind, "train");
  ASSERT_TRUE(log->Write({{"kind", "train"}, {"step", 3}}).ok());
  EXPECT_EQ(Steps(log->path()), (std::vector<int>{1, 2, 3}));
}

TEST(MetricsLogTest, RecallsTheValidationsThatItKeeps) {
  const TemporaryFolder folder;
  const auto log = OpenLog(folder, 0);
  for (const int step : {1, 2, 3, 4}) {
    const char* const kind = step % 2 == 0 ? "validation" : "train";
    ASSERT_TRUE(log->Write({{"kind", kind}, {"step", step}, {"accuracy", 0.1 * step}}).ok());
  }
  EXPECT_TRUE(log->kept_validations().empty()) << "what it has found";
  const auto again = OpenLog(folder, 3);
  ASSERT_EQ(again->kept_validations().size(), 1u);
  EXPECT_EQ(again->kept_validations()[0]["step"], 2);
  EXPECT_EQ(again->kept_validations()[0]["accuracy"], 0.2);
}

TEST(MetricsLogTest, ANewRunStartsEmpty) {
  const TemporaryFolder folder;
  WriteFile(folder / "metrics.jsonl", "whatever was here\n");
  EXPECT_EQ(ReadFile(OpenLog(folder, 0)->path()), "");
}

TEST(MetricsLogTest, ResumeWithoutALogStartsOne) {
  const TemporaryFolder folder;
  EXPECT_EQ(ReadFile(OpenLog(folder, 7)->path()), "");
  EXPECT_EQ(OpenLog(folder, 7)->kept().step, 0);
}

TEST(MetricsLogTest, NamesADamagedLineAndLeavesTheFile) {
  for (const char* damaged : {"{\"step\":", "[1]", "{\"kind\":\"train\"}", "{\"step\":1.5}", ""}) {
    const TemporaryFolder folder;
    const std::string text = std::string("{\"kind\":\"train\",\"step\":1}\n") + damaged +
                             "\n{\"kind\":\"train\",\"step\":3}\n";
    WriteFile(folder / "metrics.jsonl", text);
    const absl::Status status = MetricsLog::Open(folder.path(), 9).status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(folder / "metrics.jsonl"), HasSubstr("line 2")));
    EXPECT_EQ(ReadFile(folder / "metrics.jsonl"), text);
  }
}

TEST(MetricsLogTest, RefusesALineWithoutKindOrStep) {
  const TemporaryFolder folder;
  const auto log = OpenLog(folder, 0);
  EXPECT_EQ(ExitCodeOf(log->Write({{"kind", "train"}})), ExitCode::kInternal);
  EXPECT_EQ(ExitCodeOf(log->Write({{"step", 1}})), ExitCode::kInternal);
  EXPECT_EQ(ReadFile(log->path()), "");
}

TEST(MetricsLogTest, AFolderThatCannotBeMadeIsAnIoError) {
  const TemporaryFolder folder;
  WriteFile(folder / "file", "");
  const absl::Status status = MetricsLog::Open(folder / "file/run", 0).status();
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(folder / "file"), HasSubstr("Not a directory")));
}

}  // namespace
}  // namespace hypermoe
