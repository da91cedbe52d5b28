// Charts hold their data, name their axes and are XML whatever they are given. tests/launch/
// inspect.py has them parsed by another program.
#include "runtime/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/svg_canvas.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Whether every element that begins ends, in order, and no markup stands in texts.
testing::AssertionResult IsBalanced(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = svg.find('<'); at != std::string::npos; at = svg.find('<', at + 1)) {
    const size_t end = svg.find_first_of("<>", at + 1);
    if (end == std::string::npos || svg[end] != '>')
      return testing::AssertionFailure() << "markup in " << svg.substr(at, 60);
    const std::string tag = svg.substr(at + 1, end - at - 1), name = tag.substr(0, tag.find(' '));
    if (tag.back() == '/') continue;
    if (tag.front() != '/') {
      open.push_back(name);
    } else if (open.empty() || "/" + open.back() != name) {
      return testing::AssertionFailure() << "<" << tag << "> ends what is not open";
    } else {
      open.pop_back();
    }
  }
  if (!open.empty()) return testing::AssertionFailure() << "no end of " << open.back();
  return testing::AssertionSuccess();
}

constexpr char kNasty[] = "a<b> & \"c\"\x01 \xff";

LineChart Lines() {
  LineChart chart;
  chart.title = kNasty;
  chart.x.label = "step & more";
  chart.y.label = "loss";
  chart.series.push_back({kNasty, {{1, 2.5, 2, 3}, {2, 1.0 / 3, 0.25, 0.5}, {3, 0.1, 0, 0.2}}});
  chart.series.push_back({"other", {{1, 1, {}, {}}, {2, NAN, {}, {}}, {3, 2, {}, {}}}, true});
  return chart;
}

TEST(SvgChartTest, LinesHoldTheirDataExactlyAndPartWhereThereIsNone) {
  const std::string svg = DrawLines(Lines());
  EXPECT_TRUE(IsBalanced(svg));
  EXPECT_THAT(svg, AllOf(HasSubstr("step &amp; more</text>"), HasSubstr(">loss</text>"),
                         HasSubstr("data-y=\"2.5 0.3333333333333333 0.1\""),
                         HasSubstr("data-low=\"2 0.25 0\""), HasSubstr("data-y=\"1 NaN 2\""),
                         HasSubstr("<polygon")));
  // The second line has no two neighbours to join.
  EXPECT_THAT(svg, Not(HasSubstr("stroke-dasharray")));
  EXPECT_EQ(svg, DrawLines(Lines()));
}

TEST(SvgChartTest, ALogarithmicAxisLeavesOutWhatIsNotAboveZero) {
  LineChart chart = Lines();
  chart.y.logarithmic = true;
  chart.series[0].points = {{1, 1, {}, {}}, {2, 0, {}, {}}, {3, 100, {}, {}}, {4, 10, {}, {}}};
  const std::string svg = DrawLines(chart);
  EXPECT_TRUE(IsBalanced(svg));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(SvgChartTest, BarsBesideAndOnEachOther) {
  BarChart chart;
  chart.title = "bars";
  chart.category_label = "kind";
  chart.values.label = "seconds";
  chart.categories = {"moe", kNasty};
  chart.series = {{"forward", {1.5, 2}}, {"backward", {3, NAN}}};
  for (const bool stacked : {false, true}) {
    chart.stacked = stacked;
    const std::string svg = DrawBars(chart);
    EXPECT_TRUE(IsBalanced(svg));
    EXPECT_THAT(svg, AllOf(HasSubstr(">kind</text>"), HasSubstr(">seconds</text>"),
                           HasSubstr("data-series=\"forward\" data-value=\"1.5\""),
                           HasSubstr("data-series=\"backward\" data-value=\"3\"")));
  }
}

TEST(SvgChartTest, AHeatMapHoldsItsRows) {
  HeatMap map;
  map.title = "load";
  map.row_label = "block";
  map.column_label = "expert";
  map.value_label = "load / mean";
  map.row_names = {"1", "3"};
  map.values = Matrix(2, 3);
  map.values.values = {0, 0.5, 1.25, NAN, 3, -1};
  map.scale = HeatScale::kDiverging;
  map.min = 0;
  map.max = 2;
  const std::string svg = DrawHeatMap(map);
  EXPECT_TRUE(IsBalanced(svg));
  EXPECT_THAT(svg, AllOf(HasSubstr("data-name=\"3\" data-values=\"NaN 3 -1\""),
                         HasSubstr(">block</text>"), HasSubstr(">expert</text>"),
                         HasSubstr(">load / mean</text>"), HasSubstr("#b2182b")));
}

TEST(SvgChartTest, PointsCarryTheirLabels) {
  ScatterChart chart;
  chart.title = "map";
  chart.x.label = "t-SNE 1";
  chart.y.label = "t-SNE 2";
  chart.series.push_back({"", {{-1, 2, "0"}, {3, 4, "1"}, {NAN, 1, "2"}}});
  chart.equal_units = true;
  const std::string svg = DrawPoints(chart);
  EXPECT_TRUE(IsBalanced(svg));
  EXPECT_THAT(svg, AllOf(HasSubstr("data-label=\"1\" data-x=\"3\" data-y=\"4\""),
                         HasSubstr(">t-SNE 1</text>"), HasSubstr(">t-SNE 2</text>"),
                         Not(HasSubstr("data-label=\"2\""))));
}

TEST(SvgChartTest, NothingToShowIsAChartAsWell) {
  for (const std::string& svg : {DrawLines({}), DrawBars({}), DrawHeatMap({}), DrawPoints({})}) {
    EXPECT_TRUE(IsBalanced(svg));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
  }
  LineChart one = Lines();
  one.series = {{"", {{5, 7, {}, {}}}, false}};
  EXPECT_THAT(DrawLines(one), Not(HasSubstr("nan")));
}

TEST(SvgCanvasTest, TextsCannotBreakThePicture) {
  EXPECT_EQ(EscapeMarkup("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
  EXPECT_EQ(EscapeMarkup("\x01\xff\xEF\xBF\xBF"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(EscapeMarkup("\xC3\xA9"), "\xC3\xA9");
}

TEST(SvgCanvasTest, NumbersReadBackAndZeroHasNoSign) {
  EXPECT_EQ(ExactNumber(0.1), "0.1");
  EXPECT_EQ(ExactNumber(-0.0), "0");
  EXPECT_EQ(ExactNumber(INFINITY), "");
  EXPECT_EQ(ShortNumber(NAN), "n/a");
  EXPECT_EQ(SvgNumber(-0.001), "0.00");
}

}  // namespace
}  // namespace hypermoe
