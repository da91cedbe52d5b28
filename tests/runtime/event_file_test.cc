#include "runtime/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/support/event_file_reader.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

json Line(int64_t step, double loss) { return {{"kind", "train"}, {"step", step}, {"loss", loss}}; }

std::unique_ptr<EventFile> Create(const std::string& run_dir, int64_t first_step) {
  auto events = EventFile::Create(run_dir, first_step);
  EXPECT_TRUE(events.ok()) << events.status();
  return events.ok() ? *std::move(events) : nullptr;
}

TEST(EventFileTest, TheReaderKnowsCrc32c) {
  // The check value of the CRC catalogues, and RFC 3720, B.4.
  EXPECT_EQ(BitwiseCrc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(BitwiseCrc32c(std::string(32, '\0')), 0x8a9136aau);
}

TEST(EventFileTest, ARecordIsTheBytesThatTensorFlowWrites) {
  // Length, its masked CRC, the data, its masked CRC (computed in Python, bit by bit).
  const std::string length("\x03\0\0\0\0\0\0\0", 8);
  EXPECT_EQ(TfRecord("abc"), length + "\xb0\x99\x49\x0e" + "abc" + "\x6e\x57\xf1\x21");
}

TEST(EventFileTest, NumbersBecomePointsUnderTheirKindAndName) {
  const TemporaryFolder folder;
  const std::time_t before = std::time(nullptr);
  const auto events = Create(folder.path(), 1);
  json line = Line(7, 2.5);
  line["expert_load"] = {{1, 2}};
  line["note"] = "text";
  line["tokens"] = int64_t{4096};
  ASSERT_TRUE(events->Write(line).ok());
  ASSERT_TRUE(events->Write({{"kind", "validation"}, {"step", 7}, {"loss", 2.75}}).ok());

  EXPECT_THAT(EventFiles(folder.path()), ElementsAre(events->path()));
  const std::vector<RecordedEvent> read = ReadEvents(events->path());
  ASSERT_EQ(read.size(), 4u);
  EXPECT_EQ(read[0].file_version, "brain.Event:2");
  EXPECT_TRUE(read[1].session_start);
  EXPECT_EQ(read[1].step, 1);
  EXPECT_EQ(read[2].step, 7);
  EXPECT_THAT(read[2].values,
              UnorderedElementsAre(Pair("train/loss", 2.5f), Pair("train/tokens", 4096.0f)));
  EXPECT_THAT(read[3].values, UnorderedElementsAre(Pair("validation/loss", 2.75f)));
  EXPECT_FALSE(read[2].session_start);
  for (const RecordedEvent& event : read) {
    EXPECT_GE(event.wall_time, static_cast<double>(before));
    EXPECT_LE(event.wall_time, static_cast<double>(std::time(nullptr)) + 1);
  }
}

TEST(EventFileTest, LargeStepsNotANumberAndInfinityReadBack) {
  const TemporaryFolder folder;
  const auto events = Create(folder.path(), 1);
  const double infinity = std::numeric_limits<double>::infinity();
  ASSERT_TRUE(events->Write(Line(int64_t{1} << 40, infinity)).ok());
  ASSERT_TRUE(events->Write(Line(300, std::nan(""))).ok());
  const std::vector<RecordedEvent> read = ReadEvents(events->path());
  ASSERT_EQ(read.size(), 4u);
  EXPECT_EQ(read[2].step, int64_t{1} << 40);
  EXPECT_EQ(read[2].values.at("train/loss"), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(read[3].values.at("train/loss")));
}

TEST(EventFileTest, ALaterProcessReplacesTheStepsThatItDoesAgain) {
  const TemporaryFolder folder;
  // All within a second, and in the order of their names nevertheless.
  for (const int first : {1, 3, 3}) {
    const auto events = Create(folder.path(), first);
    for (int step = first; step < first + 4; ++step) {
      ASSERT_TRUE(events->Write(Line(step, 10 * first + step)).ok());
    }
  }
  EXPECT_EQ(EventFiles(folder.path()).size(), 3u);
  const auto shown = ShownPoints(folder.path());
  EXPECT_THAT(shown.at("train/loss"), ElementsAre(Pair(1, 11), Pair(2, 12), Pair(3, 33),
                                                  Pair(4, 34), Pair(5, 35), Pair(6, 36)));
}

TEST(EventFileTest, AFolderThatIsNotThereIsAnIoErrorThatNamesIt) {
  const TemporaryFolder folder;
  const absl::Status status = EventFile::Create(folder / "nowhere", 1).status();
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nowhere"));
  EXPECT_THAT(EventFiles(folder.path()), IsEmpty());
}

}  // namespace
}  // namespace hypermoe
