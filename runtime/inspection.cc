#include "runtime/inspection.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/evaluator.h"
#include "runtime/file_util.h"
#include "runtime/inspection_report.h"
#include "runtime/loaded_model.h"
#include "runtime/stored_model.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

// Cells of the heat maps that a page shows for each embedding; of more it shows last layers alone.
constexpr int64_t kMostCells = 10000;
// A map takes a second at 128 experts and grows with their square.
constexpr int64_t kMostMappedEverywhere = 128;
constexpr int64_t kMostMapped = 512;

// `path` without what separates it from a name inside.
std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

absl::StatusOr<std::string> OutputOf(const InspectOptions& options) {
  if (!options.output.empty()) return WithoutSlashes(options.output);
  if (IsCheckpointFolder(options.path)) {
    return UsageError(absl::StrCat(Printable(options.path),
                                   " is a checkpoint, which nothing can be written into: give "
                                   "--output"));
  }
  return WithoutSlashes(options.path) + "/inspect";
}

// The metrics of the run that `stored` was read from; "" for a model folder.
std::string MetricsPath(const InspectOptions& options, const StoredModel& stored) {
  if (stored.checkpoint.empty()) return "";
  if (!IsCheckpointFolder(options.path)) return options.path + "/metrics.jsonl";
  // RUN/checkpoints/step_N
  std::error_code ignored;
  const fs::path folder = fs::absolute(options.path, ignored).lexically_normal();
  const fs::path named = folder.has_filename() ? folder : folder.parent_path();
  return (named.parent_path().parent_path() / "metrics.jsonl").string();
}

std::vector<bool> ShownLayers(const ModelConfig& model,
                              const std::vector<LayerEmbeddings>& layers) {
  const auto count = static_cast<int64_t>(layers.size());
  const bool all = count * model.num_experts() * model.num_experts() <= kMostCells;
  std::vector<bool> shown;
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool last = i + 1 == layers.size() ||
                      StackOf(model, layers[i].block) != StackOf(model, layers[i + 1].block);
    shown.push_back(all || last);
  }
  return shown;
}

void MakeMaps(Inspection* found) {
  const int64_t experts = found->info.config.model().num_experts();
  const uint64_t seed = found->info.config.runtime().seed();
  for (size_t i = 0; i < found->embeddings.size(); ++i) {
    const bool wanted = experts <= (found->shown[i] ? kMostMapped : kMostMappedEverywhere);
    const auto map = [&](const Matrix& distances_NN) {
      return wanted ? MakeTsneMap(distances_NN, seed) : std::nullopt;
    };
    found->expert_maps.push_back(map(found->embeddings[i].expert_distances));
    found->selection_maps.push_back(map(found->embeddings[i].selection_distances));
  }
}

// What is stored and recorded. Local.
absl::StatusOr<Inspection> Read(const InspectOptions& options) {
  ASSIGN_OR_RETURN(const StoredModel stored, OpenStoredModel(options.path));
  Inspection found;
  found.path = WithoutSlashes(options.path);
  found.info = stored.info;
  found.parameters = GroupTensors(stored.model.tensors->entries());
  found.counts = CountParameters(stored.model.config);
  ASSIGN_OR_RETURN(found.embeddings, ReadExpertEmbeddings(stored, &found.why_no_embeddings));
  found.shown = ShownLayers(stored.model.config.model(), found.embeddings);
  MakeMaps(&found);
  const std::string metrics = MetricsPath(options, stored);
  if (metrics.empty()) return found;
  ASSIGN_OR_RETURN(found.recorded, ReadRecordedUsage(metrics, found.info.step));
  if (!found.recorded.has_value()) return found;
  const ModelConfig& model = stored.model.config.model();
  const Matrix& tokens_LN = found.recorded->tokens_LN;
  const auto layers = static_cast<int64_t>(SparseLayers(model).size());
  if (tokens_LN.rows == layers && tokens_LN.columns == model.num_experts()) return found;
  return DataError(absl::StrCat(Printable(metrics), ": tokens of ", tokens_LN.columns,
                                " experts in ", tokens_LN.rows, " layers, but the model has ",
                                model.num_experts(), " experts in ", layers,
                                ": it is the record of another model; move it away"));
}

// Nothing without data, and for a model without experts.
absl::StatusOr<std::optional<MeasuredUsage>> Measure(const InspectOptions& options,
                                                     std::shared_ptr<Communicator> world,
                                                     int expert_parallel) {
  if (options.data.empty()) return std::optional<MeasuredUsage>();
  ASSIGN_OR_RETURN(LoadedModel loaded,
                   LoadModel(options.path, options.dtype, world, expert_parallel));
  EvaluateOptions evaluated;
  evaluated.checkpoint = options.path;
  evaluated.data = options.data;
  const absl::StatusOr<std::shared_ptr<const ValidationData>> windows =
      OpenEvaluationWindows(evaluated, loaded.info);
  RETURN_IF_ERROR(Agree(*world, windows.status()));
  if (loaded.model->sparse_layers().empty()) return std::optional<MeasuredUsage>();
  return std::optional<MeasuredUsage>(MeasureUsage(loaded, **windows, options.max_windows));
}

}  // namespace

absl::StatusOr<std::string> Inspect(const InspectOptions& options,
                                    std::shared_ptr<Communicator> world, int expert_parallel) {
  const bool first = world->rank() == 0;
  // Before anything that takes long.
  const absl::StatusOr<std::string> output = OutputOf(options);
  absl::Status status = output.status();
  if (status.ok() && first) status = ReportFolder::Check(*output, kInspectProgram);
  RETURN_IF_ERROR(Agree(*world, status));
  absl::StatusOr<std::optional<MeasuredUsage>> measured = Measure(options, world, expert_parallel);
  RETURN_IF_ERROR(Agree(*world, measured.status()));
  std::string figures;
  const auto report = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(Inspection found, Read(options));
    found.measured = *std::move(measured);
    RETURN_IF_ERROR(ReportOf(found).Write(*output));
    figures = MainFigures(found, *output);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(Agree(*world, first ? report() : absl::OkStatus()));
  return figures;
}

}  // namespace hypermoe
