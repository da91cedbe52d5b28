#include "runtime/model_growth.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/keyed_random.h"
#include "model/config_values.h"
#include "model/expert_capacity.h"
#include "model/router_losses.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/config_loader.h"
#include "runtime/file_util.h"
#include "runtime/grown_tensors.h"
#include "runtime/growth_plan.h"
#include "runtime/model_cost.h"
#include "runtime/model_folder_writer.h"
#include "runtime/parameter_patterns.h"
#include "runtime/starting_config.h"
#include "runtime/trainer.h"
#include "runtime/written_tensors.h"

namespace hypermoe {
namespace {

// Tokens to compare on: rows, and positions of each.
constexpr int64_t kRows = 8, kPositions = 64;

double ToleranceOf(RuntimeConfig::Dtype dtype) {
  return dtype == RuntimeConfig::float64 ? 1e-10 : 1e-5;
}

// The larger model's configuration.
absl::StatusOr<RunConfig> GrownConfig(const RunConfig& from, const GrowthOptions& options,
                                      bool* limits_kept) {
  for (const std::string& change : options.changes) {
    if (absl::StartsWith(change, "model.") || absl::StartsWith(change, "hyper.")) continue;
    return UsageError(
        absl::StrCat("--set ", change, ": of the new model, fields of model and hyper can be set"));
  }
  ASSIGN_OR_RETURN(RunConfig given, ReadGivenConfig("", options.changes));
  if (from.model().kind() == ModelConfig::dense && !given.model().has_renormalize())
    given.mutable_model()->set_renormalize(!HasEncoder(from.model()));
  RunConfig config = from;
  RunConfig grown = StartingFrom(from, given);
  if (from.model().kind() != ModelConfig::dense) {
    *limits_kept = KeepExpertLimits(grown.model().num_experts(), grown.model().top_k(),
                                    config.mutable_model());
    grown = StartingFrom(config, given);
  }
  *config.mutable_model() = grown.model();
  *config.mutable_hyper() = grown.hyper();
  return config;
}

// One model on this rank.
struct Built {
  ProcessMesh mesh;
  std::unique_ptr<LanguageModel> model;
  std::vector<FlatBuffer> buffers;
};

Built Build(const RunConfig& config, std::shared_ptr<Communicator> world, int expert_parallel) {
  Built built;
  RunConfig layout = config;
  layout.mutable_mesh()->set_expert_parallel(expert_parallel);
  // Its parameters are float32, and two models can only be compared in that.
  if (config.runtime().dtype() == RuntimeConfig::bfloat16)
    layout.mutable_runtime()->set_dtype(RuntimeConfig::float32);
  built.mesh = ProcessMesh::Create(world, ExpertDegree(layout, world->size()));
  built.model = MakeModel(layout, built.mesh);
  built.buffers = MakeFlatBuffers(ApplyPatterns(config, built.model->parameters()));
  return built;
}

class Growth {
 public:
  Growth(const GrowthOptions& options, std::shared_ptr<Communicator> world)
      : options_(options), world_(std::move(world)) {}

  absl::StatusOr<GrowthReport> Execute();

 private:
  // What a model makes of this rank's rows of the tokens to compare on.
  struct Outcome {
    at::Tensor logits_TV;
    GrowthLosses losses;
  };

  absl::Status Open();
  absl::Status SetDtype();
  absl::Status Compare(const Outcome& before, const Outcome& after);
  absl::Status Write(const GrownTensors& grown, Built& target);
  absl::Status WriteRun(Built& target);
  absl::Status WriteConfig();
  absl::Status FillMoments(Built& target, AdamW* optimizer);
  Batch Tokens() const;
  Outcome Run(Built& built, const ModelConfig& model);
  void Say(const std::string& text) const {
    if (world_->rank() == 0) std::fprintf(stderr, "%s\n", text.c_str());
  }

  const GrowthOptions& options_;
  std::shared_ptr<Communicator> world_;
  StoredModel source_;
  GrowthPlan plan_;
  GrowthReport report_;
};

// A run keeps its dtype, and its seed.
absl::Status Growth::SetDtype() {
  RuntimeConfig& runtime = *source_.model.config.mutable_runtime();
  if (source_.checkpoint.empty()) runtime.set_seed(options_.seed);
  if (options_.dtype.empty()) return absl::OkStatus();
  RuntimeConfig::Dtype dtype = runtime.dtype();
  if (!RuntimeConfig::Dtype_Parse(options_.dtype, &dtype) || dtype == RuntimeConfig::bfloat16) {
    return UsageError(
        absl::StrCat("runtime.dtype is '", options_.dtype, "': expected float32 or float64"));
  }
  if (!source_.checkpoint.empty() && dtype != runtime.dtype()) {
    return UsageError(absl::StrCat(
        "runtime.dtype is ", options_.dtype, ", but ", source_.checkpoint, " is of a run in ",
        RuntimeConfig::Dtype_Name(runtime.dtype()), ", which has to go on in it: leave it out"));
  }
  runtime.set_dtype(dtype);
  return absl::OkStatus();
}

// Local.
absl::Status Growth::Open() {
  std::error_code error;
  if (std::filesystem::exists(options_.output, error)) {
    return UsageError(absl::StrCat("--output ", Printable(options_.output),
                                   " exists already: give a new folder"));
  }
  ASSIGN_OR_RETURN(source_, OpenStartingModel(options_.from));
  RETURN_IF_ERROR(SetDtype());
  const RunConfig& from = source_.model.config;
  ASSIGN_OR_RETURN(report_.to, GrownConfig(from, options_, &report_.limits_kept));
  report_.from = from;
  if (report_.to.model().kind() == ModelConfig::dense) {
    return ConfigError(absl::StrCat(Printable(options_.from),
                                    " is dense: it has no experts that could become more; "
                                    "`hypermoe upcycle` makes experts of it"));
  }
  ASSIGN_OR_RETURN(plan_, PlanGrowth(from, report_.to));
  RETURN_IF_ERROR(ValidateModel(report_.to));
  report_.changes = plan_.changes;
  if (plan_.changes.empty() || options_.allow_change) return absl::OkStatus();
  return ConfigError(absl::StrCat("the new model would not compute what ", Printable(options_.from),
                                  " does: ", absl::StrJoin(plan_.changes, "; "),
                                  ". Change that, or give --allow_change"));
}

Batch Growth::Tokens() const {
  const ModelConfig& model = plan_.to;
  const int64_t positions = std::min<int64_t>(model.sequence_length(), kPositions);
  // Both models must get the same rows on this rank, in groups that neither cuts.
  const int64_t unit = CapacityGroupRows(model.evaluation_capacity());
  const bool alike = unit == CapacityGroupRows(plan_.from.evaluation_capacity());
  const RowRange mine = UnitsOfRank(kRows, alike ? unit : 0, world_->size(), world_->rank());
  const RandomKey key = RandomKey{options_.seed, 0}.Derive("tokens to compare on");
  const at::Tensor ids = at::empty({mine.size(), positions + 1}, at::kLong);
  int64_t* id = ids.mutable_data_ptr<int64_t>();
  const int64_t first = mine.begin * (positions + 1);
  for (int64_t i = 0; i < ids.numel(); ++i) {
    id[i] =
        static_cast<int64_t>(UniformAt(key, static_cast<uint64_t>(first + i)) * model.vocab_size());
  }
  return {ids.narrow(1, 0, positions).contiguous(), ids.narrow(1, 1, positions).contiguous(),
          at::arange(mine.begin, mine.end, at::kLong)};
}

// In evaluation. Collective over the world.
Growth::Outcome Growth::Run(Built& built, const ModelConfig& model) {
  const at::NoGradGuard no_grad;
  built.model->ParametersChanged();
  const Batch batch = Tokens();
  const int64_t positions = std::min<int64_t>(plan_.to.sequence_length(), kPositions);
  const auto tokens = static_cast<double>(kRows * positions);
  const ModelOutput output = built.model->Forward(batch, ForwardMode{});
  const at::Tensor logits_TV =
      output.logits_TV.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  const RouterLosses router = ComputeRouterLosses(output.routing, model, {1, kRows}, *world_);
  std::array<double, 5> sums = {
      CrossEntropy(output.logits_TV, batch.labels_BS, tokens).item<double>(),
      router.switch_balance.item<double>(), router.importance.item<double>(),
      router.load.item<double>(), router.router_z.item<double>()};
  world_->AllReduceSum(at::from_blob(sums.data(), {5}, at::kDouble));
  return {logits_TV, {sums[0], sums[1], sums[2], sums[3], sums[4]}};
}

absl::StatusOr<GrowthReport> Growth::Execute() {
  RETURN_IF_ERROR(Agree(*world_, Open()));
  Say(absl::StrFormat("reading %s: %d parameters", options_.from,
                      CountParameters(report_.from).total()));
  Outcome before;
  {
    Built source = Build(report_.from, world_, 0);
    RETURN_IF_ERROR(Agree(*world_, FillParameters(*source_.model.tensors, options_.from,
                                                  plan_.from.num_experts(), source.buffers)));
    before = Run(source, plan_.from);
  }
  Say(absl::StrFormat("making the new model: %d parameters", CountParameters(report_.to).total()));
  Built target = Build(report_.to, world_, options_.expert_parallel);
  RETURN_IF_ERROR(CheckPatterns(report_.to, target.model->parameters()));
  const GrownTensors grown(source_.model.tensors, plan_, target.model->parameters(), std::nullopt);
  RETURN_IF_ERROR(
      Agree(*world_, FillParameters(grown, options_.from, plan_.to.num_experts(), target.buffers)));
  RETURN_IF_ERROR(Compare(before, Run(target, plan_.to)));
  SeparateClones(plan_, options_.jitter, options_.seed, target.model->parameters());
  report_.separated = Run(target, plan_.to).losses;
  Say(absl::StrCat("writing ", options_.output));
  RETURN_IF_ERROR(Write(grown, target));
  return report_;
}

// Collective over the world.
absl::Status Growth::Compare(const Outcome& before, const Outcome& after) {
  report_.before = before.losses;
  report_.after = after.losses;
  std::array<double, 2> largest = {0, 0};
  if (before.logits_TV.numel() > 0) {
    largest = {(after.logits_TV - before.logits_TV).abs().max().item<double>(),
               before.logits_TV.abs().max().item<double>()};
  }
  world_->AllReduceMax(at::from_blob(largest.data(), {2}, at::kDouble));
  report_.error = largest[0];
  report_.largest_logit = largest[1];
  report_.tolerance = ToleranceOf(report_.to.runtime().dtype());
  if (report_.WithinTolerance() || options_.allow_change) return absl::OkStatus();
  return ConfigError(absl::StrFormat(
      "the new model does not compute what %s does: logits differ by %.3g, the largest is %.3g, "
      "tolerance %g of it; nothing was written (--allow_change writes it)",
      Printable(options_.from), report_.error, report_.largest_logit, report_.tolerance));
}

absl::Status Growth::Write(const GrownTensors& grown, Built& target) {
  const bool from_folder = source_.checkpoint.empty();
  if (!from_folder && source_.moments != nullptr) return WriteRun(target);
  const auto tensors = std::make_shared<WrittenTensors>(grown, target.model->parameters(),
                                                        !from_folder || !options_.dtype.empty());
  if (from_folder) {
    ModelFolder folder;
    folder.config = report_.to;
    folder.config_json = source_.model.config_json;
    folder.tensors = tensors;
    return WriteModelFolder(folder, options_.output, kDefaultShardBytes, *world_);
  }
  CheckpointInfo info = source_.info;
  info.config = report_.to;
  RETURN_IF_ERROR(SaveParameters(options_.output, info, *tensors, *world_));
  return WriteConfig();
}

// Local.
absl::Status Growth::FillMoments(Built& target, AdamW* optimizer) {
  for (const AdamW::Moment moment : {AdamW::Moment::kFirst, AdamW::Moment::kSecond}) {
    const GrownTensors grown(source_.moments, plan_, target.model->parameters(), moment);
    for (size_t i = 0; i < target.buffers.size(); ++i) {
      const FlatBuffer& buffer = target.buffers[i];
      for (size_t p = 0; p < buffer.parameters().size(); ++p) {
        const Parameter& parameter = *buffer.parameters()[p];
        if (parameter.frozen) continue;
        for (const NamedTensor& view : GlobalViews(parameter, buffer.View(buffer.values(), p))) {
          ASSIGN_OR_RETURN(const at::Tensor values, grown.Read(view.name));
          optimizer->SetMoments(i, moment, view.tensor.storage_offset(), values);
        }
      }
    }
  }
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(source_.checkpoint));
  optimizer->set_steps(manifest.optimizer_steps);
  return absl::OkStatus();
}

absl::Status Growth::WriteRun(Built& target) {
  CheckpointInfo info = source_.info;
  info.config = report_.to;
  info.world_size = world_->size();
  info.expert_parallel = target.mesh.expert->size();
  const std::vector<GradientBucket> buckets = MakeGradientBuckets(
      target.buffers, target.mesh, int64_t{info.config.mesh().bucket_mebibytes()} << 20);
  AdamW optimizer(target.buffers, buckets, {}, /*sharded=*/false);
  RETURN_IF_ERROR(Agree(*world_, FillMoments(target, &optimizer)));
  RETURN_IF_ERROR(SaveCheckpoint(options_.output, info, target.buffers, optimizer, target.mesh));
  return WriteConfig();
}

absl::Status Growth::WriteConfig() {
  return Agree(*world_, world_->rank() == 0 ? WriteRunConfig(options_.output, report_.to)
                                            : absl::OkStatus());
}

}  // namespace

absl::StatusOr<GrowthReport> GrowModel(const GrowthOptions& options,
                                       std::shared_ptr<Communicator> world) {
  return Growth(options, std::move(world)).Execute();
}

}  // namespace hypermoe
