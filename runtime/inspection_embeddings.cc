#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/inspection_report.h"
#include "runtime/svg_canvas.h"
#include "runtime/svg_chart.h"

namespace hypermoe {
namespace {

std::string CellOf(std::optional<double> value) { return ExactNumber(value.value_or(NAN)); }

// A picture of a layer, on the page where the layer is shown.
class LayerPictures {
 public:
  LayerPictures(const LayerEmbeddings& layer, bool shown, ReportFolder* report)
      : layer_(layer), shown_(shown), report_(*report) {}

  void Maps(const std::optional<TsneMap>& experts, const std::optional<TsneMap>& selections) {
    if (!experts.has_value() || !selections.has_value()) return;
    BeginRow();
    Map("map_selections", "selection embeddings", *selections);
    Map("map_experts", "expert embeddings", *experts);
    EndRow();
  }

  void Matrices() {
    BeginRow();
    Matrix_("distance_selections", "distance of selection embeddings", layer_.selection_distances,
            HeatScale::kSequential);
    Matrix_("distance_experts", "distance of expert embeddings", layer_.expert_distances,
            HeatScale::kSequential);
    EndRow();
    BeginRow();
    Matrix_("cosine_selections", "cosine of selection embeddings", layer_.selection_cosines,
            HeatScale::kDiverging);
    Matrix_("cosine_experts", "cosine of expert embeddings", layer_.expert_cosines,
            HeatScale::kDiverging);
    EndRow();
  }

  // A point a pair of experts.
  void Pairs() {
    ScatterChart chart;
    chart.title = absl::StrCat("distances of pairs in block ", layer_.block);
    chart.x.label = "distance of expert embeddings";
    chart.y.label = "distance of selection embeddings";
    chart.series.emplace_back();
    const Matrix& experts = layer_.expert_distances;
    for (int64_t i = 0; i < experts.rows; ++i) {
      for (int64_t j = i + 1; j < experts.columns; ++j) {
        // Of many pairs labels would cover each other.
        chart.series[0].points.push_back({experts(i, j), layer_.selection_distances(i, j),
                                          experts.rows > 10 ? "" : absl::StrCat(i, "-", j)});
      }
    }
    Add("pairs", DrawPoints(chart),
        absl::StrCat("Each point is a pair of experts. Pearson's correlation ",
                     ShortNumber(layer_.distances.pearson.value_or(NAN)), "."));
  }

 private:
  void BeginRow() {
    if (shown_) report_.page().BeginRow();
  }
  void EndRow() {
    if (shown_) report_.page().EndRow();
  }

  void Add(const std::string& name, const std::string& svg, const std::string& caption) {
    const std::string full = absl::StrCat("embeddings_", layer_.block, "_", name);
    if (shown_) {
      report_.Figure(full, svg, caption);
    } else {
      report_.Picture(full, svg);
    }
  }

  void Map(const std::string& name, const std::string& what, const TsneMap& map) {
    ScatterChart chart;
    chart.title = absl::StrCat("t-SNE of ", what, " in block ", layer_.block);
    chart.x.label = "t-SNE 1";
    chart.y.label = "t-SNE 2";
    chart.equal_units = true;
    chart.series.emplace_back();
    for (int64_t i = 0; i < map.points_N2.rows; ++i)
      chart.series[0].points.push_back({map.points_N2(i, 0), map.points_N2(i, 1), absl::StrCat(i)});
    Add(name, DrawPoints(chart),
        absl::StrCat("t-SNE of ", what, ", perplexity ", ShortNumber(map.perplexity),
                     ", divergence ", ShortNumber(map.divergence), "."));
  }

  void Matrix_(const std::string& name, const std::string& what, const Matrix& values,
               HeatScale scale) {
    HeatMap map;
    map.title = absl::StrCat(what, " in block ", layer_.block);
    map.row_label = "expert";
    map.column_label = "expert";
    map.value_label = scale == HeatScale::kDiverging ? "cosine" : "distance";
    map.values = values;
    map.scale = scale;
    map.min = scale == HeatScale::kDiverging ? -1 : 0;
    if (scale == HeatScale::kDiverging) map.max = 1;
    Add(name, DrawHeatMap(map), absl::StrCat("The ", what, "."));
  }

  const LayerEmbeddings& layer_;
  bool shown_;
  ReportFolder& report_;
};

ReportTable CorrelationTable(const Inspection& found) {
  ReportTable table = {{"block", "distance_pearson", "distance_spearman", "distance_p_value",
                        "cosine_pearson", "cosine_spearman", "cosine_p_value"},
                       {}};
  for (const LayerEmbeddings& layer : found.embeddings) {
    table.rows.push_back({absl::StrCat(layer.block), CellOf(layer.distances.pearson),
                          CellOf(layer.distances.spearman), CellOf(layer.distances.p_value),
                          CellOf(layer.cosines.pearson), CellOf(layer.cosines.spearman),
                          CellOf(layer.cosines.p_value)});
  }
  return table;
}

ReportTable PairTable(const Inspection& found) {
  ReportTable table = {{"block", "expert", "other_expert", "expert_distance", "selection_distance",
                        "expert_cosine", "selection_cosine"},
                       {}};
  for (const LayerEmbeddings& layer : found.embeddings) {
    for (int64_t i = 0; i < layer.experts.rows; ++i) {
      for (int64_t j = i + 1; j < layer.experts.rows; ++j) {
        table.rows.push_back({absl::StrCat(layer.block), absl::StrCat(i), absl::StrCat(j),
                              ExactNumber(layer.expert_distances(i, j)),
                              ExactNumber(layer.selection_distances(i, j)),
                              ExactNumber(layer.expert_cosines(i, j)),
                              ExactNumber(layer.selection_cosines(i, j))});
      }
    }
  }
  return table;
}

ReportTable MapTable(const Inspection& found) {
  ReportTable table = {{"block", "expert", "expert_x", "expert_y", "selection_x", "selection_y"},
                       {}};
  for (size_t layer = 0; layer < found.embeddings.size(); ++layer) {
    const std::optional<TsneMap>&experts = found.expert_maps[layer],
          &selections = found.selection_maps[layer];
    for (int64_t i = 0; i < found.embeddings[layer].experts.rows; ++i) {
      const auto cell = [&](const std::optional<TsneMap>& map, int64_t axis) {
        return map.has_value() ? ExactNumber(map->points_N2(i, axis)) : "";
      };
      if (!experts.has_value() && !selections.has_value()) continue;
      table.rows.push_back({absl::StrCat(found.embeddings[layer].block), absl::StrCat(i),
                            cell(experts, 0), cell(experts, 1), cell(selections, 0),
                            cell(selections, 1)});
    }
  }
  return table;
}

ReportTable ForPeople(ReportTable table) {
  for (std::vector<std::string>& row : table.rows) {
    for (size_t i = 1; i < row.size(); ++i)
      row[i] = row[i].empty() ? "n/a" : ShortNumber(std::stod(row[i]));
  }
  return table;
}

}  // namespace

void AddEmbeddings(const Inspection& found, ReportFolder* report) {
  HtmlPage& page = report->page();
  page.Heading("Embeddings of experts and selections");
  if (found.embeddings.empty()) {
    page.Paragraph(absl::StrCat("None: ", found.why_no_embeddings, "."));
    return;
  }
  page.Paragraph(
      "The selection embedding of expert i is what the hypernetwork starts from when expert i "
      "alone is selected. Where the distances of selection embeddings follow those of expert "
      "embeddings, what a token is given of the others depends on the expert that it has (the "
      "paper's Fig. 5). Correlations are over all pairs of experts; p: the share of random "
      "renumberings of the experts that correlate as well (Mantel's test).");
  const ReportTable correlations = CorrelationTable(found);
  report->Csv("embeddings_correlations", correlations);
  report->Csv("embeddings_pairs", PairTable(found));
  report->Csv("embeddings_maps", MapTable(found));
  page.Table(ForPeople(correlations));
  for (size_t i = 0; i < found.embeddings.size(); ++i) {
    if (found.shown[i]) page.Heading(absl::StrCat("Block ", found.embeddings[i].block));
    LayerPictures pictures(found.embeddings[i], found.shown[i], report);
    pictures.Maps(found.expert_maps[i], found.selection_maps[i]);
    pictures.Pairs();
    pictures.Matrices();
  }
  for (const bool shown : found.shown) {
    if (shown) continue;
    page.Paragraph("The pictures of the other sparse layers lie beside this page.");
    break;
  }
}

}  // namespace hypermoe
