#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/inspection_report.h"
#include "runtime/svg_canvas.h"
#include "runtime/svg_chart.h"

namespace hypermoe {
namespace {

constexpr size_t kMostPoints = 400;  // of a curve

std::vector<std::string> BlockNames(const Inspection& found) {
  std::vector<std::string> names;
  for (const int64_t block : SparseLayers(found.info.config.model()))
    names.push_back(absl::StrCat(block));
  return names;
}

// Tokens over the mean of their layer.
Matrix RelativeLoad(const Matrix& tokens_LN) {
  Matrix relative_LN = tokens_LN;
  for (int64_t layer = 0; layer < tokens_LN.rows; ++layer) {
    double sum = 0;
    for (int64_t expert = 0; expert < tokens_LN.columns; ++expert) sum += tokens_LN(layer, expert);
    for (int64_t expert = 0; expert < tokens_LN.columns; ++expert) {
      relative_LN(layer, expert) =
          sum > 0 ? tokens_LN(layer, expert) * static_cast<double>(tokens_LN.columns) / sum : NAN;
    }
  }
  return relative_LN;
}

void AddLoad(const std::string& name, const std::vector<std::string>& blocks,
             const Matrix& tokens_LN, ReportFolder* report) {
  HeatMap map;
  map.title = "load of the experts";
  map.row_label = "block";
  map.column_label = "expert";
  map.value_label = "load / mean";
  map.row_names = blocks;
  map.values = RelativeLoad(tokens_LN);
  map.scale = HeatScale::kDiverging;
  map.min = 0;
  map.max = 2;
  report->Figure(name, DrawHeatMap(map),
                 "Tokens of each expert over the mean of its sparse layer: 1 is balance, 0 an "
                 "expert without tokens; from 2 on the colour stays.");
}

// With `dropped_LN`, where it is known by expert.
ReportTable LoadTable(const std::vector<std::string>& blocks, const Matrix& tokens_LN,
                      const Matrix* dropped_LN) {
  const Matrix relative_LN = RelativeLoad(tokens_LN);
  ReportTable table = {{"block", "expert", "tokens", "load_over_mean"}, {}};
  if (dropped_LN != nullptr) table.columns.push_back("dropped");
  for (int64_t layer = 0; layer < tokens_LN.rows; ++layer) {
    for (int64_t expert = 0; expert < tokens_LN.columns; ++expert) {
      table.rows.push_back({blocks[static_cast<size_t>(layer)], absl::StrCat(expert),
                            ExactNumber(tokens_LN(layer, expert)),
                            ExactNumber(relative_LN(layer, expert))});
      if (dropped_LN != nullptr)
        table.rows.back().push_back(ExactNumber((*dropped_LN)(layer, expert)));
    }
  }
  return table;
}

double RowSum(const Matrix& matrix, int64_t row) {
  double sum = 0;
  for (int64_t column = 0; column < matrix.columns; ++column) sum += matrix(row, column);
  return sum;
}

// A line a sparse layer.
ReportTable LayerTable(const std::vector<std::string>& blocks, const Matrix& tokens_LN,
                       const std::vector<double>& dropped_L,
                       const std::vector<double>& hyper_shares_L) {
  ReportTable table = {
      {"block", "choices", "load_max_over_mean", "unused_experts", "dropped_share"}, {}};
  if (!hyper_shares_L.empty()) table.columns.push_back("hyper_share");
  for (int64_t layer = 0; layer < tokens_LN.rows; ++layer) {
    const auto i = static_cast<size_t>(layer);
    Matrix row(1, tokens_LN.columns);
    for (int64_t expert = 0; expert < row.columns; ++expert)
      row(0, expert) = tokens_LN(layer, expert);
    const double choices = RowSum(tokens_LN, layer);
    table.rows.push_back({blocks[i], ExactNumber(choices), ExactNumber(LoadMaxOverMean(row)),
                          absl::StrCat(UnusedExperts(row)),
                          ExactNumber(choices > 0 ? dropped_L[i] / choices : 0)});
    if (i < hyper_shares_L.size()) table.rows.back().push_back(ExactNumber(hyper_shares_L[i]));
  }
  return table;
}

// The same for people.
ReportTable Shortened(ReportTable table) {
  for (std::vector<std::string>& row : table.rows) {
    for (std::string& cell : row) {
      if (cell.find_first_of(".e") != std::string::npos) cell = ShortNumber(std::stod(cell));
    }
  }
  return table;
}

constexpr char kShareText[] =
    "hyper_share is what HyperExperts add to the tokens over what experts add: the root of the sum "
    "of squares of the one divided by that of the other.";

using StepField = double RecordedUsage::Step::*;

// Every k-th step, the last one among them.
LineSeries Course(const std::vector<RecordedUsage::Step>& steps, StepField field) {
  LineSeries series;
  const size_t stride = (steps.size() + kMostPoints - 1) / kMostPoints;
  for (size_t i = (steps.size() - 1) % stride; i < steps.size(); i += stride)
    series.points.push_back({static_cast<double>(steps[i].step), steps[i].*field, {}, {}});
  return series;
}

void AddCourse(const RecordedUsage& usage, const std::string& name, const std::string& label,
               const std::string& caption, StepField field, ReportFolder* report) {
  const bool any = std::any_of(usage.steps.begin(), usage.steps.end(),
                               [&](const auto& step) { return std::isfinite(step.*field); });
  if (!any) return;
  LineChart chart;
  chart.title = caption;
  chart.x.label = "step";
  chart.y.label = label;
  chart.series.push_back(Course(usage.steps, field));
  report->Figure(name, DrawLines(chart), caption);
}

void AddCourseCsv(const RecordedUsage& usage, ReportFolder* report) {
  ReportTable table = {
      {"step", "load_max_over_mean", "idle_experts", "dropped_share", "hyper_share"}, {}};
  for (const RecordedUsage::Step& step : usage.steps) {
    table.rows.push_back({absl::StrCat(step.step), ExactNumber(step.load_max_over_mean),
                          ExactNumber(step.idle_experts), ExactNumber(step.dropped_share),
                          ExactNumber(step.hyper_share)});
  }
  report->Csv("recorded_course", table);
}

void AddTogether(const std::vector<std::string>& blocks, const MeasuredUsage& usage,
                 ReportFolder* report) {
  if (usage.together_L.empty()) return;
  report->page().Heading("Experts chosen together");
  ReportTable table = {{"block", "expert", "other_expert", "tokens"}, {}};
  report->page().BeginRow();
  for (size_t layer = 0; layer < usage.together_L.size(); ++layer) {
    const Matrix& together_NN = usage.together_L[layer];
    HeatMap map;
    map.title = absl::StrCat("experts chosen together in block ", blocks[layer]);
    map.row_label = "expert";
    map.column_label = "expert";
    map.value_label = "share of row";
    map.values = Matrix(together_NN.rows, together_NN.columns);
    map.min = 0;
    for (int64_t i = 0; i < together_NN.rows; ++i) {
      for (int64_t j = 0; j < together_NN.columns; ++j) {
        const double own = together_NN(i, i);
        map.values(i, j) = i == j || own == 0 ? NAN : together_NN(i, j) / own;
        if (i < j)
          table.rows.push_back(
              {blocks[layer], absl::StrCat(i), absl::StrCat(j), ExactNumber(together_NN(i, j))});
      }
    }
    report->Figure(absl::StrCat("measured_together_", blocks[layer]), DrawHeatMap(map),
                   absl::StrCat("Block ", blocks[layer],
                                ": of the tokens that chose a row's expert, the share that chose "
                                "a column's as well."));
  }
  report->page().EndRow();
  report->Csv("measured_together", table);
}

}  // namespace

void AddRecordedUsage(const Inspection& found, ReportFolder* report) {
  if (!found.recorded.has_value()) return;
  const RecordedUsage& usage = *found.recorded;
  const std::vector<std::string> blocks = BlockNames(found);
  HtmlPage& page = report->page();
  page.Heading("Experts in training");
  page.Paragraph(absl::StrCat(
      "What the run has recorded; table and map: of its last ", usage.last_steps, " steps",
      usage.hyper_shares_L.empty() ? "" : ", hyper_share of the last one", "."));
  const ReportTable layers =
      LayerTable(blocks, usage.tokens_LN, usage.dropped_L, usage.hyper_shares_L);
  report->Csv("recorded_layers", layers);
  page.Table(Shortened(layers));
  if (!usage.hyper_shares_L.empty()) page.Paragraph(kShareText);
  report->Csv("recorded_load", LoadTable(blocks, usage.tokens_LN, nullptr));
  AddLoad("recorded_load", blocks, usage.tokens_LN, report);
  AddCourseCsv(usage, report);
  using Step = RecordedUsage::Step;
  AddCourse(usage, "recorded_balance", "largest load / mean",
            "Tokens of the busiest expert over the mean, in the layer where that is worst.",
            &Step::load_max_over_mean, report);
  AddCourse(usage, "recorded_idle", "experts", "Experts that got no token in the step.",
            &Step::idle_experts, report);
  AddCourse(usage, "recorded_dropped", "share of choices",
            "Choices for which the expert had no room.", &Step::dropped_share, report);
  AddCourse(usage, "recorded_hyper_share", "hyper_share",
            "What HyperExperts add over what experts add, mean of the layers.", &Step::hyper_share,
            report);
}

void AddMeasuredUsage(const Inspection& found, ReportFolder* report) {
  if (!found.measured.has_value()) return;
  const MeasuredUsage& usage = *found.measured;
  const std::vector<std::string> blocks = BlockNames(found);
  HtmlPage& page = report->page();
  page.Heading("Experts in evaluation");
  page.Paragraph(absl::StrCat("Measured by passing ", usage.windows,
                              " windows of the given tokens through the model."));
  std::vector<double> dropped_L;
  for (int64_t layer = 0; layer < usage.dropped_LN.rows; ++layer)
    dropped_L.push_back(RowSum(usage.dropped_LN, layer));
  const ReportTable layers = LayerTable(blocks, usage.tokens_LN, dropped_L, usage.hyper_shares_L);
  report->Csv("measured_layers", layers);
  page.Table(Shortened(layers));
  if (!usage.hyper_shares_L.empty()) page.Paragraph(kShareText);
  report->Csv("measured_load", LoadTable(blocks, usage.tokens_LN, &usage.dropped_LN));
  AddLoad("measured_load", blocks, usage.tokens_LN, report);
  AddTogether(blocks, usage, report);
}

}  // namespace hypermoe
