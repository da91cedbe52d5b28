// Charts as SVG: lines with bands, bars, heat maps and points. Every chart names what its axes are,
// and holds its data beside its shapes: in attributes data-*, as numbers that read back exactly,
// and for who points at a shape. The same data give the same bytes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/matrix.h"

namespace hypermoe {

struct ChartAxis {
  std::string label;
  // Of what is shown; absent: as the data need.
  std::optional<double> min, max;
  bool logarithmic = false;  // leaves out what is not above 0
};

// A point with the ends of what it may vary in (of a band), if it has some.
struct LinePoint {
  double x = 0, y = 0;
  std::optional<double> low, high;
};

// Points in the order of the line. Those that are not finite part it.
struct LineSeries {
  std::string name;  // in the legend; "": not there
  std::vector<LinePoint> points;
  bool dashed = false;
};

struct LineChart {
  std::string title;  // for who cannot see it; a page gives its own
  ChartAxis x, y;
  std::vector<LineSeries> series;
};
std::string DrawLines(const LineChart& chart);

struct BarSeries {
  std::string name;
  std::vector<double> values;  // by category; not finite: no bar
};

// Bars stand beside each other within a category, or on each other.
struct BarChart {
  std::string title;
  std::string category_label;
  std::vector<std::string> categories;
  ChartAxis values;
  std::vector<BarSeries> series;
  bool stacked = false;
};
std::string DrawBars(const BarChart& chart);

enum class HeatScale {
  kSequential,  // from min to max
  kDiverging,   // two colours, with the middle of min and max between them
};

struct HeatMap {
  std::string title;
  std::string row_label, column_label, value_label;
  std::vector<std::string> row_names, column_names;  // empty: their numbers, from 0
  Matrix values;  // not finite: left blank
  HeatScale scale = HeatScale::kSequential;
  std::optional<double> min, max;  // of the colours; absent: those of the values
};
std::string DrawHeatMap(const HeatMap& chart);

struct ScatterPoint {
  double x = 0, y = 0;
  std::string label;  // written beside the point
};

struct ScatterSeries {
  std::string name;
  std::vector<ScatterPoint> points;
};

struct ScatterChart {
  std::string title;
  ChartAxis x, y;
  std::vector<ScatterSeries> series;
  // Units of both axes are of one length, as on a map.
  bool equal_units = false;
};
std::string DrawPoints(const ScatterChart& chart);

}  // namespace hypermoe
