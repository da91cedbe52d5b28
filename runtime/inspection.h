// What a trained model shows of itself (`hypermoe inspect`): what its parameters are for, how
// tokens fall on its experts, and how its embeddings of experts lie to each other.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/expert_embeddings.h"
#include "runtime/measured_usage.h"
#include "runtime/model_cost.h"
#include "runtime/parameter_groups.h"
#include "runtime/recorded_usage.h"
#include "runtime/status.h"
#include "runtime/tsne.h"

namespace hypermoe {

struct InspectOptions {
  std::string path;         // run folder (its newest checkpoint), checkpoint folder or model folder
  std::string output;       // folder; "": `inspect` in a run or model folder
  std::string data;         // prefix of a token file, to measure with; "": nothing is measured
  int64_t max_windows = 0;  // of it, evenly spread; 0: all
  std::string dtype;        // to measure in; "" as trained
};

struct Inspection {
  std::string path;
  CheckpointInfo info;  // of a model folder: its configuration, step 0
  std::vector<ParameterGroupSize> parameters;
  ParameterCounts counts;
  std::optional<RecordedUsage> recorded;
  std::optional<MeasuredUsage> measured;
  std::vector<LayerEmbeddings> embeddings;  // by sparse layer; or empty, and
  std::string why_no_embeddings;
  // Of the layers of `embeddings`, in their order; nothing where there is no map (MakeTsneMap), or
  // none is made: of layers that a page does not show, where experts are many.
  std::vector<std::optional<TsneMap>> expert_maps, selection_maps;
  // Which of the layers a page shows: all, or where that is much the last one of every stack.
  std::vector<bool> shown;
};

// Looks at the model and writes the report into a folder (report_folder.h): index.html, pictures
// and tables. The same model, record and data give the same bytes. Returns the main figures as one
// JSON object, on rank 0; elsewhere "". UsageError for an output that cannot be
// (ReportFolder::Check), and for a checkpoint folder without one; errors of what is read and
// written. Collective over `world`: rank 0 reads and writes, all measure; the same status on every
// rank.
absl::StatusOr<std::string> Inspect(const InspectOptions& options,
                                    std::shared_ptr<Communicator> world, int expert_parallel);

}  // namespace hypermoe
