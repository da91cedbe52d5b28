#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/chart_frame.h"
#include "runtime/svg_canvas.h"
#include "runtime/svg_chart.h"

namespace hypermoe {
namespace {

// A map of more cells holds its values by row alone, not in every cell as well.
constexpr int64_t kMostTips = 1200;
constexpr int64_t kMostNumbers = 12;  // columns, up to which cells show their values

using Color = std::array<double, 3>;
constexpr Color kWhite = {247, 247, 247}, kBlue = {33, 102, 172}, kRed = {178, 24, 43};

Color Between(const Color& from, const Color& to, double share) {
  Color color;
  for (size_t i = 0; i < color.size(); ++i) color[i] = from[i] + share * (to[i] - from[i]);
  return color;
}

std::string Hex(const Color& color) {
  return absl::StrFormat("#%02x%02x%02x", static_cast<int>(std::lround(color[0])),
                         static_cast<int>(std::lround(color[1])),
                         static_cast<int>(std::lround(color[2])));
}

// Of a row or column.
std::string Name(const std::vector<std::string>& names, int64_t index) {
  const auto i = static_cast<size_t>(index);
  return i < names.size() ? names[i] : std::to_string(index);
}

// Bytes of the longest name.
size_t Longest(const std::vector<std::string>& names, int64_t count) {
  size_t longest = 0;
  for (int64_t i = 0; i < count; ++i) longest = std::max(longest, Name(names, i).size());
  return longest;
}

class HeatDrawing {
 public:
  explicit HeatDrawing(const HeatMap& chart)
      : chart_(chart),
        cell_(CellSize(chart)),
        area_(AreaOf(chart, cell_)),
        scale_(Bounds(chart), chart.values.values, Bar().first, Bar().second),
        canvas_(area_.width, area_.height, chart.title) {}

  std::string Draw() {
    for (int64_t row = 0; row < chart_.values.rows; ++row) DrawRow(row);
    DrawNames();
    DrawColors();
    canvas_.Text({0.5 * (area_.left + Right()), area_.height - 10}, SvgAnchor::kMiddle,
                 chart_.column_label);
    canvas_.VerticalText({16, 0.5 * (area_.top + area_.inner_bottom())}, chart_.row_label);
    return canvas_.Finish();
  }

 private:
  struct Size {
    double width, height;
  };

  static Size CellSize(const HeatMap& chart) {
    const double columns = std::max<double>(1, static_cast<double>(chart.values.columns)),
                 rows = std::max<double>(1, static_cast<double>(chart.values.rows));
    const double width = std::clamp(560 / columns, 4.0, 44.0);
    return {width,
            chart.values.rows == chart.values.columns ? width : std::clamp(560 / rows, 4.0, 26.0)};
  }

  static ChartArea AreaOf(const HeatMap& chart, Size cell) {
    ChartArea area;
    area.left = 40 + 7 * static_cast<double>(Longest(chart.row_names, chart.values.rows));
    area.right = 100;
    area.top = 24;
    area.width = area.left + area.right + cell.width * static_cast<double>(chart.values.columns);
    area.height = area.top + area.bottom +
                  std::max(90.0, cell.height * static_cast<double>(chart.values.rows));
    return area;
  }

  static ChartAxis Bounds(const HeatMap& chart) {
    ChartAxis axis;
    axis.label = chart.value_label;
    axis.min = chart.min;
    axis.max = chart.max;
    return axis;
  }

  double Right() const {
    return area_.left + cell_.width * static_cast<double>(chart_.values.columns);
  }
  // Where the bar of the colours ends and begins.
  std::pair<double, double> Bar() const {
    return {area_.top + std::max(80.0, cell_.height * static_cast<double>(chart_.values.rows)),
            area_.top};
  }

  // Of a value from 0, the low end, to 1.
  std::string ColorAt(double share) const {
    share = std::clamp(share, 0.0, 1.0);
    if (chart_.scale == HeatScale::kSequential) return Hex(Between(kWhite, kBlue, share));
    return Hex(share < 0.5 ? Between(kBlue, kWhite, 2 * share)
                           : Between(kWhite, kRed, 2 * share - 1));
  }
  double ShareOf(double value) const {
    return (value - scale_.low()) / (scale_.high() - scale_.low());
  }
  bool IsDark(double share) const {
    return chart_.scale == HeatScale::kSequential ? share > 0.6 : share < 0.2 || share > 0.8;
  }

  void DrawRow(int64_t row) {
    std::string values;
    for (int64_t column = 0; column < chart_.values.columns; ++column) {
      const std::string number = ExactNumber(chart_.values(row, column));
      absl::StrAppend(&values, column > 0 ? " " : "", number.empty() ? "NaN" : number);
    }
    canvas_.BeginGroup(
        {{"class", "row"}, {"data-name", Name(chart_.row_names, row)}, {"data-values", values}});
    for (int64_t column = 0; column < chart_.values.columns; ++column) DrawCell(row, column);
    canvas_.EndGroup();
  }

  void DrawCell(int64_t row, int64_t column) {
    const double value = chart_.values(row, column);
    if (!std::isfinite(value)) return;
    const SvgPoint corner = {area_.left + cell_.width * static_cast<double>(column),
                             area_.top + cell_.height * static_cast<double>(row)};
    const bool many = chart_.values.rows * chart_.values.columns > kMostTips;
    const double share = ShareOf(value);
    canvas_.Rectangle(
        corner, cell_.width, cell_.height, ColorAt(share),
        many ? ""
             : absl::StrCat(chart_.row_label, " ", Name(chart_.row_names, row), ", ",
                            chart_.column_label, " ", Name(chart_.column_names, column), ": ",
                            ShortNumber(value)));
    if (chart_.values.columns > kMostNumbers || cell_.height < 14) return;
    canvas_.Text({corner.first + 0.5 * cell_.width, corner.second + 0.5 * cell_.height + 4},
                 SvgAnchor::kMiddle, absl::StrFormat("%.3g", value == 0 ? 0.0 : value),
                 {{"fill", IsDark(share) ? "#ffffff" : "#1c2430"}, {"font-size", "11"}});
  }

  // Names of rows and columns, as many as have room.
  void DrawNames() {
    const auto every = [](double size, double needed) {
      return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(needed / size)));
    };
    for (int64_t row = 0; row < chart_.values.rows; row += every(cell_.height, 14)) {
      const double y = area_.top + cell_.height * (static_cast<double>(row) + 0.5) + 4;
      canvas_.Text({area_.left - 7, y}, SvgAnchor::kEnd, Name(chart_.row_names, row));
    }
    const double needed =
        8 + 7 * static_cast<double>(Longest(chart_.column_names, chart_.values.columns));
    for (int64_t column = 0; column < chart_.values.columns; column += every(cell_.width, needed)) {
      const double x = area_.left + cell_.width * (static_cast<double>(column) + 0.5);
      canvas_.Text({x, area_.top + cell_.height * static_cast<double>(chart_.values.rows) + 17},
                   SvgAnchor::kMiddle, Name(chart_.column_names, column));
    }
  }

  // What the colours mean.
  void DrawColors() {
    constexpr int kSteps = 40;
    constexpr double kWidth = 14;
    const double x = Right() + 22;
    const auto [bottom, top] = Bar();
    const double step = (bottom - top) / kSteps;
    for (int i = 0; i < kSteps; ++i) {
      canvas_.Rectangle({x, bottom - step * (i + 1)}, kWidth, step + 0.3,
                        ColorAt((i + 0.5) / kSteps));
    }
    for (const double tick : scale_.ticks()) {
      canvas_.Text({x + kWidth + 5, scale_.Place(tick) + 4}, SvgAnchor::kStart, ShortNumber(tick));
    }
    canvas_.Text({area_.width - 6, 15}, SvgAnchor::kEnd, chart_.value_label);
  }

  const HeatMap& chart_;
  Size cell_;
  ChartArea area_;
  ChartScale scale_;
  SvgCanvas canvas_;
};

}  // namespace

std::string DrawHeatMap(const HeatMap& chart) { return HeatDrawing(chart).Draw(); }

}  // namespace hypermoe
