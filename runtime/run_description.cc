#include "runtime/run_description.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/hyper_execution.h"
#include "runtime/model_cost.h"
#include "runtime/parameter_patterns.h"
#include "runtime/run_length.h"

namespace hypermoe {

MemoryPlan PlanMemoryOf(const RunConfig& config, const RunData& data, const ProcessMesh& mesh) {
  RunConfig of_rows = config;
  of_rows.mutable_model()->set_sequence_length(static_cast<int32_t>(data.row_length));
  return PlanMemory(of_rows, mesh.world->size(), mesh.expert->size());
}

std::string DescribeRun(const RunConfig& config, const RunData& data, const ProcessMesh& mesh,
                        int threads) {
  const ParameterCounts parameters = CountParameters(config);
  const int64_t frozen = CountFrozen(config).total();
  const std::optional<ModelFlops> flops = CountFlops(config);
  std::string text = absl::StrFormat(
      "%s: %d parameters (%d active for a token%s)%s; %d ranks, expert degree %d, %d threads a "
      "rank, %s\nmemory a rank, computed: %s",
      ModelConfig::Kind_Name(config.model().kind()), parameters.total(), parameters.active,
      frozen > 0 ? absl::StrCat(", ", frozen, " frozen") : "",
      flops.has_value() ? absl::StrFormat(", %.4g MFLOP a token",
                                          1e-6 * flops->TrainingPerToken(BatchTokens(config)))
                        : "",
      mesh.world->size(), mesh.expert->size(), threads, data.description,
      DescribeMemory(PlanMemoryOf(config, data, mesh)));
  if (config.model().kind() == ModelConfig::hyper) {
    const ExecutionChoice choice = ChooseExecution(config, mesh.world->size(), mesh.expert->size());
    absl::StrAppend(&text, "\nHyperExperts: execution ",
                    HyperConfig::Execution_Name(choice.execution),
                    choice.reason.empty() ? "" : absl::StrCat(" (", choice.reason, ")"));
  }
  return text;
}

}  // namespace hypermoe
