// The frame of a chart: where values are on its canvas, ticks, axis labels and legend.
#pragma once

#include <string>
#include <vector>

#include "runtime/svg_canvas.h"
#include "runtime/svg_chart.h"

namespace hypermoe {

// Values along one axis, and where they are.
class ChartScale {
 public:
  // `values`: what is to be seen. The axis runs from `begin` to `end` on the canvas.
  ChartScale(const ChartAxis& axis, const std::vector<double>& values, double begin, double end);

  bool Shows(double value) const;  // whether it has a place
  double Place(double value) const;
  double low() const { return low_; }
  double high() const { return high_; }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  void SetBounds(const ChartAxis& axis, const std::vector<double>& values);
  void SetTicks();
  double Position(double value) const;  // before it is placed: the value, or its logarithm

  bool logarithmic_;
  double low_ = 0, high_ = 1, begin_, end_;
  std::vector<double> ticks_;
};

// Of all charts with two axes.
struct ChartArea {
  double width = 760, height = 320;
  double left = 72, right = 16, top = 12, bottom = 48;
  double inner_right() const { return width - right; }
  double inner_bottom() const { return height - bottom; }
};

void DrawHorizontalTicks(const ChartArea& area, const ChartScale& scale, SvgCanvas* canvas);
void DrawVerticalTicks(const ChartArea& area, const ChartScale& scale, SvgCanvas* canvas);
// The two lines that values start from, and what is along them.
void DrawAxes(const ChartArea& area, const std::string& x_label, const std::string& y_label,
              SvgCanvas* canvas);
// Makes room above the inner part for DrawLegend.
void FitLegend(const std::vector<std::string>& names, ChartArea* area);
// Names with the colours of their numbers at the top; none for "".
void DrawLegend(const ChartArea& area, const std::vector<std::string>& names, SvgCanvas* canvas);

}  // namespace hypermoe
