#include "runtime/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "model/expert_capacity.h"
#include "model/model_factory.h"
#include "model/router_losses.h"
#include "parallel/adafactor.h"
#include "parallel/adamw.h"
#include "parallel/progress_marks.h"
#include "parallel/steady_seconds.h"
#include "parallel/token_dispatcher.h"
#include "runtime/hyper_execution.h"
#include "runtime/learning_rate.h"
#include "runtime/parameter_patterns.h"
#include "runtime/process_memory.h"
#include "runtime/run_length.h"

namespace hypermoe {
namespace {

TensorChoice TensorsOf(const RuntimeConfig& config, at::Device device) {
  switch (config.dtype()) {
    case RuntimeConfig::float64:
      return {at::kDouble, at::kDouble, device};
    case RuntimeConfig::bfloat16:
      return {at::kFloat, at::kBFloat16, device};
    case RuntimeConfig::float32:
      break;
  }
  return {at::kFloat, at::kFloat, device};
}

std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerConfig& config,
                                         const std::vector<FlatBuffer>& buffers,
                                         const std::vector<GradientBucket>& buckets) {
  if (config.kind() == OptimizerConfig::adafactor) {
    return std::make_unique<Adafactor>(
        buffers, AdafactorOptions{config.decay_rate(), config.epsilon1(), config.epsilon2(),
                                  config.clipping_threshold(), config.min_dim_size_to_factor(),
                                  config.multiply_by_parameter_scale()});
  }
  return std::make_unique<AdamW>(
      buffers, buckets,
      AdamWOptions{config.beta1(), config.beta2(), config.epsilon(), config.weight_decay()},
      /*sharded=*/config.zero1());
}

// Adds the seconds since the last call (or construction) to a phase.
class Stopwatch {
 public:
  explicit Stopwatch(const Trainer::PhaseObserver& observer) : observer_(observer) {}
  void Lap(const char* name, double* phase) {
    const double now = SteadySeconds();
    *phase += now - last_;
    if (observer_) observer_(name, last_, now);
    last_ = now;
  }

 private:
  const Trainer::PhaseObserver& observer_;
  double last_ = SteadySeconds();
};

using Ledger = std::array<Traffic, kNumCollectives>;

// Traffic of all of this rank's groups so far.
Ledger LedgerOf(const ProcessMesh& mesh) {
  Ledger ledger;
  for (const Communicator* group : {mesh.world.get(), mesh.expert.get(), mesh.expert_data.get()}) {
    for (size_t kind = 0; kind < ledger.size(); ++kind) {
      const Traffic& traffic = group->traffic(static_cast<Collective>(kind));
      ledger[kind].calls += traffic.calls;
      ledger[kind].bytes += traffic.bytes;
      ledger[kind].seconds += traffic.seconds;
    }
  }
  return ledger;
}

Ledger Since(const Ledger& before, const ProcessMesh& mesh) {
  Ledger ledger = LedgerOf(mesh);
  for (size_t kind = 0; kind < ledger.size(); ++kind) {
    ledger[kind].calls -= before[kind].calls;
    ledger[kind].bytes -= before[kind].bytes;
    ledger[kind].seconds -= before[kind].seconds;
  }
  return ledger;
}

std::unique_ptr<Prefetcher> MakeBatches(const RunConfig& config, const Communicator& world,
                                        std::shared_ptr<const TrainingData> data) {
  return std::make_unique<Prefetcher>(
      [train = config.train(), data = std::move(data), size = world.size(), rank = world.rank(),
       unit = CapacityGroupRows(config.model().training_capacity())](int64_t number) {
        const int64_t micro_batch = number % train.micro_batches();
        return data->Rows(number / train.micro_batches(), RowsOfMicroBatch(train, micro_batch),
                          RowsOfMicroBatch(train, micro_batch, size, rank, unit));
      });
}

// Pairs of a micro-batch and a rank that gets rows of it.
int64_t CountParts(const RunConfig& config, int world_size) {
  const int64_t unit = CapacityGroupRows(config.model().training_capacity());
  int64_t parts = 0;
  for (int64_t i = 0; i < config.train().micro_batches(); ++i) {
    for (int rank = 0; rank < world_size; ++rank)
      parts += RowsOfMicroBatch(config.train(), i, world_size, rank, unit).size() > 0;
  }
  return parts;
}

std::array<double*, 5> LossesOf(StepResult* result) {
  return {&result->loss, &result->balance_loss, &result->importance_loss, &result->load_loss,
          &result->router_z_loss};
}

// Whether backward through the hypernetwork, after the last one of a step, adds to the experts.
bool HyperNetworkAddsToExperts(const RunConfig& config) {
  return config.model().kind() == ModelConfig::hyper &&
         config.hyper().condition() == HyperConfig::weights &&
         config.hyper().conv_grad_to_experts();
}

// Fills in the global losses, the norm and whether the step was skipped. Everything comes from the
// device in one copy: the host waits for it once. Returns whether this rank's own losses are
// finite.
bool ReadFigures(const StepDecision& decision, const at::Tensor& own_losses_5,
                 const at::Tensor& tokens_LN, const at::Tensor& dropped_LN, StepResult* result) {
  const auto wide = [&](const at::Tensor& tensor) {
    return tensor.reshape({-1}).to(own_losses_5.device(), at::kDouble);
  };
  const at::Tensor all = at::cat({decision.losses, own_losses_5, decision.gradient_norm,
                                  wide(decision.skip), wide(tokens_LN), wide(dropped_LN)})
                             .cpu();
  const double* next = all.const_data_ptr<double>();
  for (double* loss : LossesOf(result)) *loss = *next++;
  bool own_finite = true;
  for (int64_t i = 0; i < own_losses_5.numel(); ++i) own_finite &= std::isfinite(*next++);
  result->gradient_norm = *next++;
  result->skipped = *next++ != 0;
  // Counts are whole below 2^53.
  const at::Tensor counts = all.slice(0, next - all.const_data_ptr<double>()).to(at::kLong);
  result->tokens_LN = counts.narrow(0, 0, tokens_LN.numel()).view(tokens_LN.sizes());
  result->dropped_LN =
      counts.narrow(0, tokens_LN.numel(), dropped_LN.numel()).view(dropped_LN.sizes());
  return own_finite;
}

// Turns this rank's shares into global values by two small all-reduces: sums of bytes and votes,
// means of calls and seconds, the largest memory.
void ShareResult(const Ledger& ledger, StepResult* result, Communicator& world) {
  std::vector<double> sums;
  StepSeconds& s = result->seconds;
  const std::array<double*, 5> seconds = {&s.data, &s.forward, &s.backward, &s.reduce,
                                          &s.optimizer};
  for (const double* phase : seconds) sums.push_back(*phase);
  for (const Traffic& traffic : ledger) {
    sums.push_back(static_cast<double>(traffic.calls));
    sums.push_back(static_cast<double>(traffic.bytes));
    sums.push_back(traffic.seconds);
  }
  const std::array<int64_t*, 2> votes = {&result->votes.stop, &result->votes.saving};
  for (const int64_t* vote : votes) sums.push_back(static_cast<double>(*vote));
  world.AllReduceSum(at::from_blob(sums.data(), {static_cast<int64_t>(sums.size())}, at::kDouble));
  auto sum = sums.begin();
  for (double* phase : seconds) *phase = *sum++ / world.size();
  for (Traffic& traffic : result->traffic) {
    traffic.calls = std::llround(*sum++ / world.size());
    traffic.bytes = std::llround(*sum++);
    traffic.seconds = *sum++ / world.size();
  }
  for (int64_t* vote : votes) *vote = std::llround(*sum++);
  s.all_to_all = result->traffic[static_cast<size_t>(Collective::kAllToAll)].seconds +
                 result->traffic[static_cast<size_t>(Collective::kAllToAllCounts)].seconds;
  result->memory_bytes = ReadProcessMemory().peak_resident;
  world.AllReduceMax(at::from_blob(&result->memory_bytes, {1}, at::kLong));
}

}  // namespace

double StepResult::LoadMaxOverMean() const {
  double worst = 0;
  for (int64_t layer = 0; layer < tokens_LN.size(0); ++layer) {
    const at::Tensor tokens_N = tokens_LN.select(0, layer).to(at::kDouble);
    worst = std::max(worst, (tokens_N.max() / tokens_N.mean().clamp_min(1e-9)).item<double>());
  }
  return worst;
}

int64_t StepResult::BytesSent() const {
  int64_t bytes = 0;
  for (const Traffic& of_kind : traffic) bytes += of_kind.bytes;
  return bytes;
}

double StepResult::DroppedShare() const {
  const auto tokens = tokens_LN.sum().item<double>();
  return tokens > 0 ? dropped_LN.sum().item<double>() / tokens : 0;
}

int ExpertDegree(const RunConfig& config, int world_size) {
  if (config.mesh().expert_parallel() > 0) return config.mesh().expert_parallel();
  const bool sparse = config.model().kind() != ModelConfig::dense;
  return DefaultExpertDegree(world_size, sparse ? config.model().num_experts() : 0);
}

std::unique_ptr<LanguageModel> MakeModel(const RunConfig& config, const ProcessMesh& mesh) {
  std::shared_ptr<TokenDispatcher> dispatcher;
  if (config.model().kind() != ModelConfig::dense) {
    dispatcher = std::make_shared<TokenDispatcher>(mesh.expert, config.model().num_experts());
  }
  HyperConfig hyper = config.hyper();
  hyper.set_execution(ChooseExecution(config, mesh.world->size(), mesh.expert->size()).execution);
  return MakeLanguageModel(config.model(), hyper, config.runtime().seed(),
                           TensorsOf(config.runtime(), mesh.world->device()), dispatcher);
}

Trainer::Trainer(const RunConfig& config, const ProcessMesh& mesh,
                 std::shared_ptr<const TrainingData> data)
    : config_(config),
      mesh_(mesh),
      data_(std::move(data)),
      batches_(MakeBatches(config, *mesh.world, data_)),
      model_(MakeModel(config, mesh)),
      buffers_(MakeFlatBuffers(ApplyPatterns(config, model_->parameters()))),
      buckets_(
          MakeGradientBuckets(buffers_, mesh_, int64_t{config.mesh().bucket_mebibytes()} << 20)),
      reducer_(buffers_, buckets_, /*scatter=*/config.optimizer().zero1()),
      optimizer_(MakeOptimizer(config.optimizer(), buffers_, buckets_)) {}

StepResult Trainer::TrainStep(int64_t step, const std::function<StepVotes()>& votes) {
  StepResult result;
  MarkStep(step + 1);
  const Ledger before = LedgerOf(mesh_);
  const DeviceFigures figures = AccumulateGradients(step, &result);
  MarkPhase("optimizer");
  Stopwatch watch(phase_observer_);
  const StepDecision decision =
      DecideStep(buffers_, buckets_, figures.losses_5, config_.optimizer().clip_norm(), skip_rule_,
                 *mesh_.world);
  result.learning_rate = LearningRate(config_.optimizer(), step, TotalSteps(config_));
  optimizer_->Step(result.learning_rate, decision.clip_scale, decision.skip);
  model_->ParametersChanged();
  own_losses_finite_ =
      ReadFigures(decision, figures.losses_5, figures.tokens_LN, figures.dropped_LN, &result);
  if (result.skipped) optimizer_->TakeBackStep();
  result.skipped_steps = step + 1 - optimizer_->steps();
  watch.Lap("optimizer", &result.seconds.optimizer);
  if (votes) result.votes = votes();
  ShareResult(Since(before, mesh_), &result, *mesh_.world);
  return result;
}

StepResult Trainer::ComputeGradients(int64_t step) {
  StepResult result;
  const Ledger before = LedgerOf(mesh_);
  const DeviceFigures figures = AccumulateGradients(step, &result);
  const Ledger ledger = Since(before, mesh_);
  const StepDecision decision =
      DecideStep(buffers_, buckets_, figures.losses_5, /*max_norm=*/0, skip_rule_, *mesh_.world);
  ReadFigures(decision, figures.losses_5, figures.tokens_LN, figures.dropped_LN, &result);
  ShareResult(ledger, &result, *mesh_.world);
  return result;
}

Trainer::DeviceFigures Trainer::AccumulateGradients(int64_t step, StepResult* result) {
  MarkPhase("optimizer");
  Stopwatch watch(phase_observer_);
  for (FlatBuffer& buffer : buffers_) buffer.ZeroGradients();
  watch.Lap("optimizer", &result->seconds.optimizer);
  DeviceFigures figures;
  for (int64_t i = 0; i < config_.train().micro_batches(); ++i) {
    RunMicroBatch(step, i, &figures, result);
  }

  Stopwatch after_backward(phase_observer_);
  model_->FinishBackward();
  after_backward.Lap("backward", &result->seconds.backward);
  MarkPhase("reduce");
  reducer_.Finish();
  after_backward.Lap("reduce", &result->seconds.reduce);
  return figures;
}

// The labels of the whole batch; or the rank's own that count, times the number of such means. A
// rank that has rows but no such label adds a mean of 0.
double Trainer::LossDivisor(int64_t step, const at::Tensor& labels_BT) const {
  const TrainConfig& train = config_.train();
  if (train.loss_norm() == TrainConfig::all_tokens)
    return static_cast<double>(data_->NumLabels(step));
  const auto counted = labels_BT.ne(kIgnoredLabel).sum().item<int64_t>();
  return static_cast<double>(std::max<int64_t>(1, counted)) *
         static_cast<double>(CountParts(config_, mesh_.world->size()));
}

// Micro-batch i is a fixed set of the batch's rows, cut over the ranks afterwards; a rank may get
// none and still takes part.
void Trainer::RunMicroBatch(int64_t step, int64_t micro_batch, DeviceFigures* figures,
                            StepResult* result) {
  MarkPhase("data");
  Stopwatch watch(phase_observer_);
  const TrainConfig& train = config_.train();
  const Batch taken = batches_->Take(step * train.micro_batches() + micro_batch);
  const double divisor = LossDivisor(step, taken.labels_BS);
  const Batch batch = taken.To(mesh_.world->device());
  watch.Lap("data", &result->seconds.data);
  MarkPhase("forward");

  ForwardMode mode;
  mode.training = true;
  mode.recompute = train.recompute() == TrainConfig::blocks;
  mode.key = StepKey(step);
  const ModelOutput output = model_->Forward(batch, mode);
  // So divided that every later reduction is a plain sum.
  const at::Tensor language_model = CrossEntropy(output.logits_TV, batch.labels_BS, divisor);
  const RouterLosses router = ComputeRouterLosses(
      output.routing, config_.model(), {train.micro_batches(), train.batch_size()}, *mesh_.world);
  watch.Lap("forward", &result->seconds.forward);
  MarkPhase("backward");

  if (micro_batch + 1 == train.micro_batches() && !HyperNetworkAddsToExperts(config_))
    reducer_.Arm();
  (language_model + router.Total()).backward();
  watch.Lap("backward", &result->seconds.backward);
  const auto add = [](at::Tensor& sum, const at::Tensor& share) {
    sum = sum.defined() ? sum + share : share;
  };
  // Nothing of this is looked at before the step's end: the host need not wait for a GPU.
  const auto value = [&](const at::Tensor& loss) {
    return loss.detach().to(language_model.device(), at::kDouble);
  };
  add(figures->losses_5,
      at::stack({value(language_model), value(router.switch_balance), value(router.importance),
                 value(router.load), value(router.router_z)}));
  add(figures->tokens_LN, router.tokens_LN);
  add(figures->dropped_LN, router.dropped_LN);
}

RandomKey Trainer::StepKey(int64_t step) const {
  return RandomKey{config_.runtime().seed(), 0}
      .Derive("training")
      .Derive(static_cast<uint64_t>(step));
}

std::optional<EvaluatedLosses> Trainer::Evaluate(const ValidationData& data, int64_t max_rows,
                                                 const std::function<bool()>& stop) {
  return EvaluateWindows(*model_, data, max_rows, config_, *mesh_.world, stop);
}

}  // namespace hypermoe
