#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/file_util.h"
#include "runtime/score_runs.h"

namespace hypermoe {
namespace {

using Json = nlohmann::ordered_json;

// Lines of a name and a column for each metric.
class Table {
 public:
  explicit Table(const std::vector<std::string>& metrics) : metrics_(metrics) {}

  void Add(const std::string& name, const std::vector<std::string>& cells,
           const std::string& remark = "") {
    rows_.push_back({name, cells, remark});
  }
  void Add(const std::string& name, const std::vector<double>& values,
           const std::string& remark = "") {
    std::vector<std::string> cells;
    for (const double value : values) cells.push_back(absl::StrFormat("%.2f", value));
    Add(name, cells, remark);
  }
  std::string Text() const {
    size_t name_width = 0;
    std::vector<size_t> widths(metrics_.size(), 0);
    for (const Row& row : rows_) {
      name_width = std::max(name_width, row.name.size());
      for (size_t i = 0; i < widths.size(); ++i)
        widths[i] = std::max({widths[i], metrics_[i].size(), row.cells[i].size()});
    }
    std::string text = Line({"", metrics_, ""}, name_width, widths);
    for (const Row& row : rows_) text += Line(row, name_width, widths);
    return text;
  }

 private:
  struct Row {
    std::string name;
    std::vector<std::string> cells;
    std::string remark;
  };

  static std::string Line(const Row& row, size_t name_width, const std::vector<size_t>& widths) {
    std::string line = absl::StrFormat("%-*s", static_cast<int>(name_width), row.name);
    for (size_t i = 0; i < widths.size(); ++i)
      absl::StrAppendFormat(&line, "  %*s", static_cast<int>(widths[i]), row.cells[i]);
    return absl::StrCat(line, row.remark.empty() ? "" : "  ", row.remark, "\n");
  }

  const std::vector<std::string>& metrics_;
  std::vector<Row> rows_;
};

std::string Remark(const ScoredFile& file) {
  std::string remark;
  const auto add = [&remark](int64_t count, const char* what) {
    if (count > 0) absl::StrAppend(&remark, remark.empty() ? "" : ", ", count, " ", what);
  };
  add(file.missing, "missing");
  add(file.unknown, "unknown");
  add(file.invalid, "invalid");
  return remark;
}

void AddModel(const ScoredModel& model, Table* table) {
  for (const ScoredFile& file : model.files)
    table->Add(Printable(file.path), file.values, Remark(file));
  if (model.deviations.empty()) return;
  table->Add(absl::StrCat("mean of ", model.files.size()), model.means);
  table->Add("sample standard deviation", model.deviations);
}

Json Named(const std::vector<std::string>& metrics, const std::vector<double>& values) {
  Json named = Json::object();
  for (size_t i = 0; i < values.size(); ++i) named[metrics[i]] = values[i];
  return named;
}

// The means, what was counted over all files, and of several files each one's values.
Json ModelJson(const ScoredModel& model, const std::vector<std::string>& metrics) {
  Json json = Named(metrics, model.means);
  ScoredFile all;
  Json seeds = Json::array();
  for (const ScoredFile& file : model.files) {
    all.missing += file.missing;
    all.unknown += file.unknown;
    all.invalid += file.invalid;
    Json seed = {{"predictions", file.path}};
    seed.update(Named(metrics, file.values));
    seeds.push_back(std::move(seed));
  }
  json["missing"] = all.missing;
  json["unknown"] = all.unknown;
  json["invalid"] = all.invalid;
  if (model.deviations.empty()) return json;
  json["seeds"] = std::move(seeds);
  json["standard_deviation"] = Named(metrics, model.deviations);
  return json;
}

Json DifferenceJson(const ScoreResult& result) {
  Json json = Json::object();
  for (size_t i = 0; i < result.metrics.size(); ++i) {
    json[result.metrics[i]] = {{"value", result.differences[i]},
                               {"low", result.intervals[i].low},
                               {"high", result.intervals[i].high}};
  }
  return json;
}

std::string JsonLine(const ScoreResult& result) {
  Json json = {{"task", result.task}, {"examples", result.examples}};
  json.update(ModelJson(result.model, result.metrics));
  if (result.compared) {
    json["compared"] = ModelJson(*result.compared, result.metrics);
    json["difference"] = DifferenceJson(result);
    json["resamples"] = result.bootstrap.resamples;
    json["seed"] = result.bootstrap.seed;
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string ScoreText(const ScoreResult& result) {
  std::string text = absl::StrCat(result.task, ": ", result.examples, " examples");
  if (!result.references.empty()) absl::StrAppend(&text, " of ", Printable(result.references));
  text += "\n";
  Table table(result.metrics);
  AddModel(result.model, &table);
  if (result.compared) {
    AddModel(*result.compared, &table);
    table.Add("difference", result.differences);
    std::vector<std::string> intervals;
    for (const Interval& interval : result.intervals)
      intervals.push_back(absl::StrFormat("%.2f..%.2f", interval.low, interval.high));
    table.Add(absl::StrFormat("%g %% interval", 100 * result.bootstrap.confidence), intervals,
              absl::StrCat("paired, ", result.bootstrap.resamples, " resamples, seed ",
                           result.bootstrap.seed));
  }
  return text + table.Text() + JsonLine(result);
}

}  // namespace hypermoe
