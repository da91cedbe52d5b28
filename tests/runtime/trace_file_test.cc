#include "runtime/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Category = TraceEvent::Category;

TraceEvent Phase(const std::string& name, double start, double end) {
  TraceEvent event;
  event.name = name;
  event.start = start;
  event.end = end;
  return event;
}

TraceEvent Collective(const std::string& name, double start, double end, int64_t bytes,
                      const std::string& group) {
  TraceEvent event = Phase(name, start, end);
  event.category = Category::kCollective;
  event.bytes = bytes;
  event.group = group;
  return event;
}

// Writes `events` as rank 3 with origin 100 s, and reads all that the file holds.
json Written(const std::vector<TraceEvent>& events, int64_t max_events = TraceFile::kMaxEvents) {
  const TemporaryFolder folder;
  const std::string path = folder / "profile/rank_3.json";
  auto trace = TraceFile::Create(path, 3, 100.0, max_events);
  EXPECT_TRUE(trace.ok()) << trace.status();
  for (const TraceEvent& event : events) (*trace)->Add(event);
  const absl::Status closed = (*trace)->Close();
  EXPECT_TRUE(closed.ok()) << closed;
  return json::parse(ReadFile(path)).at("traceEvents");
}

// Those of one kind ("ph"), in the order of the file.
std::vector<json> OfKind(const json& events, const std::string& kind) {
  std::vector<json> found;
  for (const json& event : events) {
    if (event.at("ph") == kind) found.push_back(event);
  }
  return found;
}

TEST(TraceFileTest, EventsHaveNameCategoryThreadAndMicrosecondsFromTheOrigin) {
  const json events = Written(
      {Phase("forward", 100.5, 100.75), Collective("all_to_all", 100.6, 100.625, 4096, "expert")});
  const std::vector<json> complete = OfKind(events, "X");
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(complete[0], json({{"ph", "X"},
                               {"pid", 3},
                               {"tid", 0},
                               {"cat", "phase"},
                               {"name", "forward"},
                               {"ts", 500000.0},
                               {"dur", 250000.0},
                               {"args", json::object()}}));
  EXPECT_EQ(complete[1], json({{"ph", "X"},
                               {"pid", 3},
                               {"tid", 1},
                               {"cat", "collective"},
                               {"name", "all_to_all"},
                               {"ts", 600000.0},
                               {"dur", 25000.0},
                               {"args", {{"bytes", 4096}, {"group", "expert"}}}}));
}

TEST(TraceFileTest, MetadataNamesTheRankAndItsThreads) {
  std::map<std::string, json> by_name;
  for (const json& event : OfKind(Written({}), "M")) {
    EXPECT_EQ(event.at("pid"), 3);
    const std::string thread = event.at("name") == "thread_name" ? event.at("tid").dump() : "";
    by_name[event.at("name").get<std::string>() + thread] = event.at("args");
  }
  EXPECT_EQ(by_name.size(), 4u);
  EXPECT_EQ(by_name["process_name"], json({{"name", "rank 3"}}));
  EXPECT_EQ(by_name["process_sort_index"], json({{"sort_index", 3}}));
  EXPECT_EQ(by_name["thread_name0"], json({{"name", "phases"}}));
  EXPECT_EQ(by_name["thread_name1"], json({{"name", "collectives"}}));
}

TEST(TraceFileTest, NestedEventsStayNestedToTheNanosecond) {
  // Starts and ends that binary fractions do not hold, far from the origin; parts share edges with
  // the whole.
  constexpr int kParts = 7;
  const double start = 100.0 + 1e4 / 3;
  const double length = 1e-3 / 7;
  std::vector<TraceEvent> added = {Phase("step", start, start + kParts * length)};
  for (int i = 0; i < kParts; ++i) {
    added.push_back(Phase("part", start + i * length, start + (i + 1) * length));
  }
  const std::vector<json> complete = OfKind(Written(added), "X");
  ASSERT_EQ(complete.size(), added.size());
  // Whole nanoseconds, as readers count.
  const auto nanoseconds = [](const json& event, const char* field) {
    const double value = event.at(field).get<double>() * 1e3;
    EXPECT_NEAR(value, std::round(value), 1e-2);
    return std::llround(value);
  };
  const auto begin = [&](const json& event) { return nanoseconds(event, "ts"); };
  const auto end = [&](const json& event) { return begin(event) + nanoseconds(event, "dur"); };
  EXPECT_NEAR(static_cast<double>(begin(complete[0])), 1e13 / 3, 1e3);
  EXPECT_EQ(begin(complete[1]), begin(complete[0]));
  EXPECT_EQ(end(complete[kParts]), end(complete[0]));
  for (int i = 1; i < kParts; ++i) EXPECT_EQ(end(complete[i]), begin(complete[i + 1]));
}

TEST(TraceFileTest, NamesAreEscaped) {
  const std::string name = "the \"best\" \\ step\n\t\x01 \xc3\xa4";
  const json events = Written({Collective(name, 101, 102, 1, "a\"b"), Phase("\xff!", 103, 104)});
  const std::vector<json> complete = OfKind(events, "X");
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(complete[0].at("name"), name);
  EXPECT_EQ(complete[0].at("args").at("group"), "a\"b");
  EXPECT_EQ(complete[1].at("name"), "\xef\xbf\xbd!");  // U+FFFD for what is not UTF-8
}

TEST(TraceFileTest, EventsBeyondTheLimitAreCountedInTheFile) {
  std::vector<TraceEvent> added;
  for (int i = 0; i < 5; ++i) added.push_back(Phase(std::to_string(i), 101 + i, 101.5 + i));
  // Events are added as they end: the one around the others comes last and began first.
  added.push_back(Phase("around", 103.25, 106));

  const json events = Written(added, 3);
  const std::vector<json> complete = OfKind(events, "X");
  ASSERT_EQ(complete.size(), 3u);
  EXPECT_EQ(complete[2].at("name"), "2");
  const std::vector<json> instant = OfKind(events, "i");
  ASSERT_EQ(instant.size(), 1u);
  EXPECT_EQ(instant[0].at("args"), json({{"events_left_out", 3}}));
  EXPECT_THAT(instant[0].at("name").get<std::string>(), HasSubstr("3 events left out"));
  EXPECT_EQ(instant[0].at("ts"), 3.25e6);
  EXPECT_EQ(instant[0].at("pid"), 3);

  EXPECT_TRUE(OfKind(Written(added, 6), "i").empty());
  EXPECT_EQ(OfKind(Written(added, 6), "X").size(), 6u);
}

TEST(TraceFileTest, FilesOfRanksJoinIntoOneTrace) {
  const TemporaryFolder folder;
  json joined = json::array();
  for (const int rank : {0, 1}) {
    const std::string path = folder / std::to_string(rank);
    // Clocks of two machines: the same moment is 100 s on one and 7000 s on the other.
    const double origin = rank == 0 ? 100 : 7000;
    auto trace = TraceFile::Create(path, rank, origin);
    ASSERT_TRUE(trace.ok()) << trace.status();
    (*trace)->Add(Phase("step", origin + 2, origin + 3));
    ASSERT_TRUE((*trace)->Close().ok());
    const json written = json::parse(ReadFile(path));
    for (const json& event : written.at("traceEvents")) joined.push_back(event);
  }
  const std::vector<json> complete = OfKind(joined, "X");
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(complete[0].at("ts"), complete[1].at("ts"));
  EXPECT_EQ(complete[0].at("pid"), 0);
  EXPECT_EQ(complete[1].at("pid"), 1);
}

TEST(TraceFileTest, WithoutCloseThereIsNoFileAndAnOldOneStays) {
  const TemporaryFolder folder;
  {
    auto trace = TraceFile::Create(folder / "new.json", 0, 0);
    ASSERT_TRUE(trace.ok());
    (*trace)->Add(Phase("step", 1, 2));
    auto again = TraceFile::Create(folder.Write("old.json", "old"), 0, 0);
    ASSERT_TRUE(again.ok());
  }
  EXPECT_EQ(ReadFile(folder / "old.json"), "old");
  EXPECT_EQ(folder.size(), 1);
}

TEST(TraceFileTest, APathThatCannotBeWrittenIsAnIoErrorBeforeAnythingIsRecorded) {
  const TemporaryFolder folder;
  folder.Write("file", "");
  const absl::Status status = TraceFile::Create(folder / "file/trace.json", 0, 0).status();
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder / "file"));
}

}  // namespace
}  // namespace hypermoe
