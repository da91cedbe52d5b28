#include "runtime/svg_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/chart_frame.h"
#include "runtime/svg_canvas.h"

namespace hypermoe {
namespace {

// A series of more is a line alone.
constexpr size_t kMostMarkers = 60;

// Numbers in an attribute, each as it reads back: "NaN" for what is no number.
template <typename Items, typename Value>
std::string Numbers(const Items& items, Value value) {
  std::string text;
  for (const auto& item : items) {
    const std::string number = ExactNumber(value(item));
    absl::StrAppend(&text, text.empty() ? "" : " ", number.empty() ? "NaN" : number);
  }
  return text;
}

template <typename Series>
std::vector<std::string> NamesOf(const std::vector<Series>& series) {
  std::vector<std::string> names;
  for (const Series& one : series) names.push_back(one.name);
  return names;
}

bool HasBand(const LinePoint& point) { return point.low.has_value() && point.high.has_value(); }

// One chart while it is drawn.
class LineDrawing {
 public:
  explicit LineDrawing(const LineChart& chart)
      : chart_(chart),
        area_(AreaOf(NamesOf(chart.series))),
        x_(chart.x, Values(true), area_.left, area_.inner_right()),
        y_(chart.y, Values(false), area_.inner_bottom(), area_.top),
        canvas_(area_.width, area_.height, chart.title) {}

  std::string Draw() {
    DrawHorizontalTicks(area_, x_, &canvas_);
    DrawVerticalTicks(area_, y_, &canvas_);
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      DrawBand(chart_.series[i], SeriesColor(i));
      DrawSeries(chart_.series[i], SeriesColor(i));
    }
    DrawAxes(area_, chart_.x.label, chart_.y.label, &canvas_);
    DrawLegend(area_, NamesOf(chart_.series), &canvas_);
    return canvas_.Finish();
  }

 private:
  static ChartArea AreaOf(const std::vector<std::string>& names) {
    ChartArea area;
    FitLegend(names, &area);
    return area;
  }

  std::vector<double> Values(bool of_x) const {
    std::vector<double> values;
    for (const LineSeries& series : chart_.series) {
      for (const LinePoint& point : series.points) {
        values.push_back(of_x ? point.x : point.y);
        if (of_x || !HasBand(point)) continue;
        values.push_back(*point.low);
        values.push_back(*point.high);
      }
    }
    return values;
  }

  bool Shows(const LinePoint& point) const { return x_.Shows(point.x) && y_.Shows(point.y); }
  SvgPoint PlaceOf(const LinePoint& point) const { return {x_.Place(point.x), y_.Place(point.y)}; }

  void DrawBand(const LineSeries& series, const std::string& color) {
    std::vector<SvgPoint> outline, back;
    for (const LinePoint& point : series.points) {
      if (!HasBand(point) || !x_.Shows(point.x)) continue;
      const auto edge = [&](double y) {
        return SvgPoint(x_.Place(point.x), y_.Place(std::clamp(y, y_.low(), y_.high())));
      };
      if (std::isnan(*point.low) || std::isnan(*point.high)) continue;
      outline.push_back(edge(*point.high));
      back.push_back(edge(*point.low));
    }
    if (outline.size() < 2) return;
    outline.insert(outline.end(), back.rbegin(), back.rend());
    canvas_.Polygon(outline, {{"fill", color}, {"fill-opacity", "0.2"}});
  }

  void DrawSeries(const LineSeries& series, const std::string& color) {
    SvgAttributes data = {
        {"class", "series"},
        {"data-name", series.name},
        {"data-x", Numbers(series.points, [](const LinePoint& point) { return point.x; })},
        {"data-y", Numbers(series.points, [](const LinePoint& point) { return point.y; })}};
    if (std::any_of(series.points.begin(), series.points.end(), HasBand)) {
      const auto end = [](const std::optional<double>& value) { return value.value_or(NAN); };
      data.emplace_back("data-low",
                        Numbers(series.points, [&](const auto& point) { return end(point.low); }));
      data.emplace_back("data-high",
                        Numbers(series.points, [&](const auto& point) { return end(point.high); }));
    }
    canvas_.BeginGroup(data);
    DrawLine(series, color);
    for (const LinePoint& point : series.points) {
      if (series.points.size() > kMostMarkers || !Shows(point)) continue;
      canvas_.Circle(PlaceOf(point), 2.6, color, Tip(series, point));
    }
    canvas_.EndGroup();
  }

  void DrawLine(const LineSeries& series, const std::string& color) {
    SvgAttributes style = {{"stroke", color}, {"stroke-width", "1.8"}};
    if (series.dashed) style.emplace_back("stroke-dasharray", "6 4");
    std::vector<SvgPoint> part;
    const auto finish = [&] {
      if (part.size() > 1) canvas_.Polyline(part, style);
      part.clear();
    };
    for (const LinePoint& point : series.points) {
      if (Shows(point)) {
        part.push_back(PlaceOf(point));
      } else {
        finish();
      }
    }
    finish();
  }

  std::string Tip(const LineSeries& series, const LinePoint& point) const {
    std::string tip = absl::StrCat(series.name, series.name.empty() ? "" : ": ", chart_.x.label,
                                   " ", ShortNumber(point.x), ", ", ShortNumber(point.y));
    if (HasBand(point)) {
      absl::StrAppend(&tip, " (", ShortNumber(*point.low), " to ", ShortNumber(*point.high), ")");
    }
    return tip;
  }

  const LineChart& chart_;
  ChartArea area_;
  ChartScale x_, y_;
  SvgCanvas canvas_;
};

ChartArea MapArea(const ScatterChart& chart) {
  ChartArea area;
  if (chart.equal_units) {
    area.width = 420;
    area.height = 396;
  }
  FitLegend(NamesOf(chart.series), &area);
  return area;
}

// What an axis must show of values, with some room at both ends, and at least `span`.
ChartAxis Widened(const ChartAxis& axis, const std::vector<double>& values, double span) {
  ChartAxis widened = axis;
  if (values.empty() || axis.logarithmic) return widened;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double middle = 0.5 * (*low + *high), half = 0.54 * std::max(span, *high - *low);
  if (half == 0) return widened;
  if (!axis.min.has_value()) widened.min = middle - half;
  if (!axis.max.has_value()) widened.max = middle + half;
  return widened;
}

}  // namespace

std::string DrawLines(const LineChart& chart) { return LineDrawing(chart).Draw(); }

std::string DrawPoints(const ScatterChart& chart) {
  std::vector<double> all_x, all_y;
  for (const ScatterSeries& series : chart.series) {
    for (const ScatterPoint& point : series.points) {
      if (!std::isfinite(point.x) || !std::isfinite(point.y)) continue;
      all_x.push_back(point.x);
      all_y.push_back(point.y);
    }
  }
  double span = 0;
  if (chart.equal_units && !all_x.empty()) {
    const auto extent = [](const std::vector<double>& values) {
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      return *high - *low;
    };
    span = std::max(extent(all_x), extent(all_y));
  }
  const ChartArea area = MapArea(chart);
  const ChartScale x(Widened(chart.x, all_x, span), all_x, area.left, area.inner_right()),
      y(Widened(chart.y, all_y, span), all_y, area.inner_bottom(), area.top);
  SvgCanvas canvas(area.width, area.height, chart.title);
  DrawHorizontalTicks(area, x, &canvas);
  DrawVerticalTicks(area, y, &canvas);
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const ScatterSeries& series = chart.series[i];
    canvas.BeginGroup({{"class", "series"}, {"data-name", series.name}});
    for (const ScatterPoint& point : series.points) {
      if (!x.Shows(point.x) || !y.Shows(point.y)) continue;
      const SvgPoint place = {x.Place(point.x), y.Place(point.y)};
      canvas.Circle(place, 4, SeriesColor(i),
                    absl::StrCat(point.label, point.label.empty() ? "" : ": ", ShortNumber(point.x),
                                 ", ", ShortNumber(point.y)),
                    {{"fill-opacity", "0.75"},
                     {"data-label", point.label},
                     {"data-x", ExactNumber(point.x)},
                     {"data-y", ExactNumber(point.y)}});
      canvas.Text({place.first + 6, place.second - 5}, SvgAnchor::kStart, point.label);
    }
    canvas.EndGroup();
  }
  DrawAxes(area, chart.x.label, chart.y.label, &canvas);
  DrawLegend(area, NamesOf(chart.series), &canvas);
  return canvas.Finish();
}

}  // namespace hypermoe
