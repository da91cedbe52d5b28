#include "runtime/chart_frame.h"

#include <algorithm>
#include <cmath>

namespace hypermoe {
namespace {

constexpr double kTickLength = 4;

SvgAttributes Faint() { return {{"stroke", "currentColor"}, {"stroke-opacity", "0.15"}}; }
SvgAttributes Plain() { return {{"stroke", "currentColor"}, {"stroke-opacity", "0.6"}}; }

// 1, 2 or 5 times a power of ten, so that `span` has about `count` of them.
double TickDistance(double span, int count) {
  const double rough = span / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

// Upper left corners of what a legend says, which goes on in a new line where one is full.
std::vector<SvgPoint> LegendPlaces(const ChartArea& area, const std::vector<std::string>& names) {
  constexpr double kLetter = 6.5, kGap = 30, kLine = 18;
  std::vector<SvgPoint> places;
  double x = area.left, y = 8;
  for (const std::string& name : names) {
    if (name.empty()) continue;
    const double width = kGap + kLetter * static_cast<double>(name.size());
    if (x > area.left && x + width > area.inner_right()) {
      x = area.left;
      y += kLine;
    }
    places.push_back({x, y});
    x += width;
  }
  return places;
}

}  // namespace

ChartScale::ChartScale(const ChartAxis& axis, const std::vector<double>& values, double begin,
                       double end)
    : logarithmic_(axis.logarithmic), begin_(begin), end_(end) {
  SetBounds(axis, values);
  SetTicks();
}

void ChartScale::SetBounds(const ChartAxis& axis, const std::vector<double>& values) {
  bool any = false;
  for (const double value : values) {
    if (!std::isfinite(value) || (logarithmic_ && value <= 0)) continue;
    low_ = any ? std::min(low_, value) : value;
    high_ = any ? std::max(high_, value) : value;
    any = true;
  }
  if (!any) {
    low_ = logarithmic_ ? 1 : 0;
    high_ = logarithmic_ ? 10 : 1;
  }
  if (axis.min.has_value()) low_ = *axis.min;
  if (axis.max.has_value()) high_ = *axis.max;
  if (low_ < high_) return;
  // One value alone is in the middle.
  const double room = low_ == 0 ? 1 : 0.1 * std::abs(low_);
  if (logarithmic_) {
    low_ *= 0.5;
    high_ = 4 * low_;
  } else {
    low_ -= room;
    high_ = low_ + 2 * room;
  }
}

void ChartScale::SetTicks() {
  if (logarithmic_) {
    const double decades = std::log10(high_ / low_);
    const std::vector<double> factors =
        decades > 3 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
    const double step = std::max(1.0, std::ceil(decades / 8));
    for (double power = std::floor(std::log10(low_)); power <= std::log10(high_); power += step) {
      for (const double factor : factors) {
        const double tick = factor * std::pow(10.0, power);
        if (tick >= low_ * (1 - 1e-9) && tick <= high_ * (1 + 1e-9)) ticks_.push_back(tick);
      }
    }
    return;
  }
  const double distance = TickDistance(high_ - low_, 6);
  const double first = std::ceil(low_ / distance - 1e-9);
  for (int i = 0; (first + i) * distance <= high_ + 1e-9 * distance; ++i)
    ticks_.push_back((first + i) * distance);
}

bool ChartScale::Shows(double value) const {
  if (logarithmic_ && !(value > 0)) return false;
  const double at = Position(value), low = Position(low_), high = Position(high_);
  const double slack = 1e-9 * (high - low);
  return std::isfinite(value) && at >= low - slack && at <= high + slack;
}

double ChartScale::Position(double value) const { return logarithmic_ ? std::log10(value) : value; }

double ChartScale::Place(double value) const {
  const double low = Position(low_), high = Position(high_);
  return begin_ + (Position(value) - low) / (high - low) * (end_ - begin_);
}

void DrawHorizontalTicks(const ChartArea& area, const ChartScale& scale, SvgCanvas* canvas) {
  for (const double tick : scale.ticks()) {
    const double x = scale.Place(tick), y = area.inner_bottom();
    canvas->Line({x, area.top}, {x, y}, Faint());
    canvas->Line({x, y}, {x, y + kTickLength}, Plain());
    canvas->Text({x, y + 17}, SvgAnchor::kMiddle, ShortNumber(tick));
  }
}

void DrawVerticalTicks(const ChartArea& area, const ChartScale& scale, SvgCanvas* canvas) {
  for (const double tick : scale.ticks()) {
    const double y = scale.Place(tick);
    canvas->Line({area.left, y}, {area.inner_right(), y}, Faint());
    canvas->Line({area.left - kTickLength, y}, {area.left, y}, Plain());
    canvas->Text({area.left - 7, y + 4}, SvgAnchor::kEnd, ShortNumber(tick));
  }
}

void DrawAxes(const ChartArea& area, const std::string& x_label, const std::string& y_label,
              SvgCanvas* canvas) {
  const SvgPoint corner = {area.left, area.inner_bottom()};
  canvas->Line({area.left, area.top}, corner, Plain());
  canvas->Line(corner, {area.inner_right(), area.inner_bottom()}, Plain());
  canvas->Text({0.5 * (area.left + area.inner_right()), area.height - 10}, SvgAnchor::kMiddle,
               x_label);
  canvas->VerticalText({16, 0.5 * (area.top + area.inner_bottom())}, y_label);
}

void FitLegend(const std::vector<std::string>& names, ChartArea* area) {
  const std::vector<SvgPoint> places = LegendPlaces(*area, names);
  if (places.empty()) return;
  const double more = places.back().second + 22 - area->top;
  area->top += more;
  area->height += more;
}

void DrawLegend(const ChartArea& area, const std::vector<std::string>& names, SvgCanvas* canvas) {
  const std::vector<SvgPoint> places = LegendPlaces(area, names);
  size_t place = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) continue;
    const auto& [x, y] = places[place++];
    canvas->Rectangle({x, y}, 12, 12, SeriesColor(i));
    canvas->Text({x + 17, y + 10}, SvgAnchor::kStart, names[i]);
  }
}

}  // namespace hypermoe
