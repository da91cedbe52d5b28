#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/chart_frame.h"
#include "runtime/svg_canvas.h"
#include "runtime/svg_chart.h"

namespace hypermoe {
namespace {

double ValueOf(const BarSeries& series, size_t category) {
  return category < series.values.size() ? series.values[category] : NAN;
}

class BarDrawing {
 public:
  explicit BarDrawing(const BarChart& chart)
      : chart_(chart),
        area_(AreaOf(chart)),
        values_(WithZero(chart), Ends(), area_.inner_bottom(), area_.top),
        canvas_(area_.width, area_.height, chart.title) {}

  std::string Draw() {
    DrawVerticalTicks(area_, values_, &canvas_);
    const double room = (area_.inner_right() - area_.left) /
                        std::max<double>(1, static_cast<double>(chart_.categories.size()));
    for (size_t i = 0; i < chart_.categories.size(); ++i) {
      const double left = area_.left + static_cast<double>(i) * room;
      DrawCategory(i, left + 0.12 * room, 0.76 * room);
      DrawName(chart_.categories[i], left + 0.5 * room, room);
    }
    DrawAxes(area_, chart_.category_label, chart_.values.label, &canvas_);
    DrawLegend(area_, Names(chart_), &canvas_);
    return canvas_.Finish();
  }

 private:
  static std::vector<std::string> Names(const BarChart& chart) {
    std::vector<std::string> names;
    for (const BarSeries& series : chart.series) names.push_back(series.name);
    return names;
  }

  static bool Slanted(const std::string& name, double room) {
    return 6.5 * static_cast<double>(name.size()) > room;
  }

  static ChartArea AreaOf(const BarChart& chart) {
    ChartArea area;
    const double room = (area.inner_right() - area.left) /
                        std::max<double>(1, static_cast<double>(chart.categories.size()));
    size_t longest = 0;
    for (const std::string& name : chart.categories) {
      if (Slanted(name, room)) longest = std::max(longest, name.size());
    }
    const double more = std::min(120.0, 4.2 * static_cast<double>(longest));
    area.bottom += more;
    area.height += more;
    // The first name reaches out to the left of its bar.
    if (!chart.categories.empty() && Slanted(chart.categories[0], room)) {
      const double reach = 5.6 * static_cast<double>(chart.categories[0].size()) - 0.4 * room;
      area.left = std::clamp(reach, area.left, 200.0);
    }
    FitLegend(Names(chart), &area);
    return area;
  }

  // Bars begin at 0, where there is one. They have some room above them.
  static ChartAxis WithZero(const BarChart& chart) {
    ChartAxis axis = chart.values;
    const bool negative =
        std::any_of(chart.series.begin(), chart.series.end(), [](const BarSeries& series) {
          return std::any_of(series.values.begin(), series.values.end(),
                             [](double value) { return value < 0; });
        });
    if (!axis.logarithmic && !negative && !axis.min.has_value()) axis.min = 0;
    return axis;
  }

  std::vector<double> Ends() const {
    std::vector<double> ends;
    for (size_t i = 0; i < chart_.categories.size(); ++i) {
      double sum = 0;
      for (const BarSeries& series : chart_.series) {
        const double value = ValueOf(series, i);
        if (!std::isfinite(value)) continue;
        sum += value;
        ends.push_back(1.04 * (chart_.stacked ? sum : value));
      }
    }
    if (!chart_.values.logarithmic) ends.push_back(0);
    return ends;
  }

  double Clamped(double value) const {
    return values_.Place(std::clamp(value, values_.low(), values_.high()));
  }

  void DrawCategory(size_t category, double left, double width) {
    const size_t side_by_side = chart_.stacked ? 1 : std::max<size_t>(1, chart_.series.size());
    const double own = width / static_cast<double>(side_by_side);
    double below = 0;
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      const double value = ValueOf(chart_.series[i], category);
      if (!std::isfinite(value)) continue;
      const double from = Clamped(chart_.values.logarithmic ? values_.low() : below),
                   to = Clamped(chart_.stacked ? below + value : value);
      const double x = left + (chart_.stacked ? 0 : own * static_cast<double>(i));
      const std::string& name = chart_.series[i].name;
      canvas_.Rectangle({x, std::min(from, to)}, own, std::abs(from - to), SeriesColor(i),
                        absl::StrCat(chart_.categories[category], name.empty() ? "" : ", ", name,
                                     ": ", ShortNumber(value)),
                        {{"data-category", chart_.categories[category]},
                         {"data-series", name},
                         {"data-value", ExactNumber(value)}});
      if (chart_.stacked) below += value;
    }
  }

  void DrawName(const std::string& name, double x, double room) {
    const double y = area_.inner_bottom() + 17;
    if (!Slanted(name, room)) return canvas_.Text({x, y}, SvgAnchor::kMiddle, name);
    canvas_.Text(
        {x, y}, SvgAnchor::kEnd, name,
        {{"transform", absl::StrCat("rotate(-35 ", SvgNumber(x), " ", SvgNumber(y), ")")}});
  }

  const BarChart& chart_;
  ChartArea area_;
  ChartScale values_;
  SvgCanvas canvas_;
};

}  // namespace

std::string DrawBars(const BarChart& chart) { return BarDrawing(chart).Draw(); }

}  // namespace hypermoe
