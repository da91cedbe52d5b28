#include "runtime/inspection_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/svg_canvas.h"
#include "runtime/svg_chart.h"

namespace hypermoe {
namespace {

using nlohmann::ordered_json;

int64_t TotalOf(const std::vector<ParameterGroupSize>& groups) {
  int64_t total = 0;
  for (const ParameterGroupSize& group : groups) total += group.parameters;
  return total;
}

void AddParameters(const Inspection& found, ReportFolder* report) {
  HtmlPage& page = report->page();
  page.Heading("Parameters");
  const int64_t total = TotalOf(found.parameters);
  ReportTable table = {{"group", "tensors", "parameters", "share"}, {}};
  BarChart chart;
  chart.title = "parameters by group";
  chart.category_label = "group";
  chart.values.label = "million parameters";
  chart.series.push_back({"", {}});
  for (const ParameterGroupSize& group : found.parameters) {
    const double share = static_cast<double>(group.parameters) / static_cast<double>(total);
    table.rows.push_back({group.name, absl::StrCat(group.tensors), absl::StrCat(group.parameters),
                          ExactNumber(share)});
    chart.categories.push_back(group.name);
    chart.series[0].values.push_back(static_cast<double>(group.parameters) * 1e-6);
  }
  report->Csv("parameters", table);
  for (std::vector<std::string>& row : table.rows)
    row[3] = absl::StrCat(ShortNumber(100 * std::stod(row[3])), " %");
  page.Table(table);
  page.Paragraph(absl::StrCat(
      "In all ", total, "; behind one token's output stand ", found.counts.active,
      " of them and of what is generated (its experts, and everything that all tokens pass)."));
  report->Figure("parameters", DrawBars(chart), "Parameters by what they are for.");
}

void AddSummary(const Inspection& found, ReportFolder* report) {
  const ModelConfig& model = found.info.config.model();
  std::string text = absl::StrCat(ModelConfig::Family_Name(model.family()), ", kind ",
                                  ModelConfig::Kind_Name(model.kind()), ", ", NumBlocks(model),
                                  " blocks of width ", model.hidden_size());
  if (model.kind() != ModelConfig::dense) {
    absl::StrAppend(&text, ", ", SparseLayers(model).size(), " of them sparse with ",
                    model.num_experts(), " experts, ", model.top_k(), " a token");
  }
  report->page().Paragraph(absl::StrCat(text, "."));
}

ordered_json NumberOr(std::optional<double> value) {
  return value.has_value() && std::isfinite(*value) ? ordered_json(*value) : ordered_json();
}

// Of the numbers that are there.
std::optional<double> MeanOf(const std::vector<double>& values) {
  double sum = 0, count = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? std::optional<double>(sum / count) : std::nullopt;
}

ordered_json UsageFigures(const Matrix& tokens_LN, double dropped,
                          const std::vector<double>& hyper_shares_L) {
  const double tokens = std::accumulate(tokens_LN.values.begin(), tokens_LN.values.end(), 0.0);
  return {{"load_max_over_mean", LoadMaxOverMean(tokens_LN)},
          {"unused_experts", UnusedExperts(tokens_LN)},
          {"dropped_share", tokens > 0 ? dropped / tokens : 0},
          {"hyper_share", NumberOr(MeanOf(hyper_shares_L))}};
}

}  // namespace

double LoadMaxOverMean(const Matrix& tokens_LN) {
  double worst = 0;
  for (int64_t layer = 0; layer < tokens_LN.rows; ++layer) {
    double sum = 0, largest = 0;
    for (int64_t expert = 0; expert < tokens_LN.columns; ++expert) {
      sum += tokens_LN(layer, expert);
      largest = std::max(largest, tokens_LN(layer, expert));
    }
    if (sum > 0) worst = std::max(worst, largest * static_cast<double>(tokens_LN.columns) / sum);
  }
  return worst;
}

int64_t UnusedExperts(const Matrix& tokens_LN) {
  return std::count(tokens_LN.values.begin(), tokens_LN.values.end(), 0.0);
}

ReportFolder ReportOf(const Inspection& found) {
  std::string title = absl::StrCat("HyperMoE: ", found.path);
  if (found.info.step > 0) absl::StrAppend(&title, ", step ", found.info.step);
  ReportFolder report(title, kInspectProgram);
  AddSummary(found, &report);
  AddParameters(found, &report);
  AddRecordedUsage(found, &report);
  AddMeasuredUsage(found, &report);
  AddEmbeddings(found, &report);
  return report;
}

std::string MainFigures(const Inspection& found, const std::string& output) {
  ordered_json groups = ordered_json::object();
  for (const ParameterGroupSize& group : found.parameters) groups[group.name] = group.parameters;
  ordered_json layers = ordered_json::array();
  std::vector<double> distances, cosines;
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  for (const LayerEmbeddings& layer : found.embeddings) {
    layers.push_back({{"block", layer.block},
                      {"distance_correlation", NumberOr(layer.distances.pearson)},
                      {"distance_rank_correlation", NumberOr(layer.distances.spearman)},
                      {"p_value", NumberOr(layer.distances.p_value)},
                      {"cosine_correlation", NumberOr(layer.cosines.pearson)}});
    distances.push_back(layer.distances.pearson.value_or(kNone));
    cosines.push_back(layer.cosines.pearson.value_or(kNone));
  }
  ordered_json figures = {{"kind", ModelConfig::Kind_Name(found.info.config.model().kind())},
                          {"step", found.info.step},
                          {"parameters", TotalOf(found.parameters)},
                          {"active_parameters", found.counts.active},
                          {"parameter_groups", groups},
                          {"distance_correlation", NumberOr(MeanOf(distances))},
                          {"cosine_correlation", NumberOr(MeanOf(cosines))},
                          {"layers", layers}};
  if (found.recorded.has_value()) {
    const RecordedUsage& usage = *found.recorded;
    figures["recorded"] = UsageFigures(
        usage.tokens_LN, std::accumulate(usage.dropped_L.begin(), usage.dropped_L.end(), 0.0),
        usage.hyper_shares_L);
    figures["recorded"]["last_steps"] = usage.last_steps;
  }
  if (found.measured.has_value()) {
    const MeasuredUsage& usage = *found.measured;
    const std::vector<double>& dropped = usage.dropped_LN.values;
    figures["measured"] =
        UsageFigures(usage.tokens_LN, std::accumulate(dropped.begin(), dropped.end(), 0.0),
                     usage.hyper_shares_L);
    figures["measured"]["windows"] = usage.windows;
  }
  figures["output"] = output;
  figures["page"] = output + "/index.html";
  return figures.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace hypermoe
