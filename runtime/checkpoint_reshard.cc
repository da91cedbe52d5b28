#include "runtime/checkpoint_reshard.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "parallel/process_mesh.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint_files.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/checkpoint_tensors.h"
#include "runtime/config_loader.h"
#include "runtime/trainer.h"

namespace hypermoe {
namespace {

struct Plan {
  std::string checkpoint;
  CheckpointManifest manifest;
  CheckpointInfo info;                          // of the new one
  std::vector<std::vector<std::string>> files;  // the tensors of each rank's
};

absl::Status CheckUnused(const std::string& run_dir) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CheckpointSteps(run_dir));
  if (steps.empty() && !std::filesystem::exists(run_dir + "/metrics.jsonl"))
    return absl::OkStatus();
  return UsageError(absl::StrCat("--output ", run_dir, " already holds a run: give another one"));
}

absl::StatusOr<Plan> MakePlan(const ReshardOptions& options) {
  Plan plan;
  RETURN_IF_ERROR(CheckUnused(options.output));
  ASSIGN_OR_RETURN(plan.checkpoint, ResolveNewestCheckpoint(options.checkpoint));
  ASSIGN_OR_RETURN(plan.manifest, ReadManifest(plan.checkpoint));
  plan.info = plan.manifest.info;
  plan.info.config.mutable_mesh()->set_expert_parallel(options.expert_parallel);
  const int64_t experts = plan.info.config.model().num_experts();
  const int degree = ExpertDegree(plan.info.config, options.ranks);
  plan.info.world_size = options.ranks;
  plan.info.expert_parallel = degree;
  // Experts are written by the first expert group, all else by its first rank (Writes).
  std::vector<int64_t> rank_of_expert(experts);
  for (int rank = 0; rank < degree; ++rank) {
    const ExpertRange range = ExpertsOfRank(experts, degree, rank);
    for (int64_t expert = range.begin; expert < range.end; ++expert) rank_of_expert[expert] = rank;
  }
  plan.files.resize(degree);
  for (const auto& [name, tensor] : plan.manifest.tensors) {
    const int64_t expert = ExpertOfTensor(name);
    if (expert >= experts) {
      return DataError(absl::StrCat("checkpoint ", Printable(plan.checkpoint), " has tensor '",
                                    Printable(name), "', but its model has ", experts, " experts"));
    }
    plan.files[expert < 0 ? 0 : rank_of_expert[expert]].push_back(name);
  }
  return plan;
}

// This rank's share of the files. Local.
absl::Status WriteShare(const Plan& plan, const CheckpointFolder& folder, const Communicator& world,
                        ManifestPart* part) {
  const CheckpointTensors tensors(plan.checkpoint, plan.manifest, CheckpointTensors::Part::kAll);
  for (size_t file = world.rank(); file < plan.files.size(); file += world.size()) {
    RETURN_IF_ERROR(WriteTensors(folder, RankFile(static_cast<int64_t>(file)), plan.files[file],
                                 tensors, part));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t ExpertOfTensor(const std::string& name) {
  constexpr char kMark[] = ".experts.expert_";
  const size_t mark = name.find(kMark);
  if (mark == std::string::npos) return -1;
  const size_t begin = mark + sizeof(kMark) - 1;
  const absl::string_view number =
      absl::string_view(name).substr(begin, name.find('.', begin) - begin);
  int64_t expert = 0;
  return absl::SimpleAtoi(number, &expert) && expert >= 0 ? expert : -1;
}

absl::StatusOr<std::string> ReshardCheckpoint(const ReshardOptions& options, Communicator& world) {
  const absl::StatusOr<Plan> plan = MakePlan(options);
  RETURN_IF_ERROR(Agree(world, plan.status()));
  const CheckpointFolder folder(options.output, plan->info.step);
  RETURN_IF_ERROR(SaveFiles(
      folder, plan->info, plan->manifest.optimizer_steps, world,
      [&](ManifestPart* part) { return WriteShare(*plan, folder, world, part); },
      [&] { return WriteRunConfig(options.output, plan->info.config); }));
  return folder.path();
}

}  // namespace hypermoe
