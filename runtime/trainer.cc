#include "runtime/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "model/balance_loss.h"
#include "parallel/gradient_reducer.h"
#include "parallel/token_dispatcher.h"
#include "runtime/decay_groups.h"
#include "runtime/learning_rate.h"
#include "runtime/run_length.h"

namespace hypermoe {
namespace {

at::ScalarType DtypeOf(const RuntimeConfig& config) {
  return config.dtype() == RuntimeConfig::float64 ? at::kDouble : at::kFloat;
}

AdamWOptions OptionsOf(const OptimizerConfig& config) {
  return {config.beta1(), config.beta2(), config.epsilon(), config.weight_decay()};
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Adds the seconds since the last call (or construction) to a phase.
class Stopwatch {
 public:
  void Lap(double* phase) {
    const double now = Now();
    *phase += now - last_;
    last_ = now;
  }

 private:
  double last_ = Now();
};

// Traffic of all of this rank's groups so far.
Traffic TotalTraffic(const ProcessMesh& mesh, bool all_to_all_only) {
  Traffic total;
  for (const Communicator* group : {mesh.world.get(), mesh.expert.get(), mesh.expert_data.get()}) {
    for (int kind = 0; kind < kNumCollectives; ++kind) {
      const auto collective = static_cast<Collective>(kind);
      const bool all_to_all =
          collective == Collective::kAllToAll || collective == Collective::kAllToAllCounts;
      if (all_to_all_only && !all_to_all) continue;
      total.bytes += group->traffic(collective).bytes;
      total.seconds += group->traffic(collective).seconds;
    }
  }
  return total;
}

std::unique_ptr<Prefetcher> MakeBatches(const RunConfig& config, const Communicator& world,
                                        const std::vector<WeightedTokens>& files) {
  const TrainConfig& train = config.train();
  const TrainingRows rows(files, config.model().sequence_length(), train.batch_size(),
                          config.runtime().seed());
  return std::make_unique<Prefetcher>(
      [train, rows, size = world.size(), rank = world.rank()](int64_t number) {
        const RowRange mine = RowsOfMicroBatch(train, number % train.micro_batches(), size, rank);
        return rows.Rows(number / train.micro_batches(), mine.begin, mine.end);
      });
}

// Turns this rank's shares into global values by one small all-reduce: sums of losses and bytes,
// means of seconds.
void ShareResult(StepResult* result, Communicator& world) {
  StepSeconds& s = result->seconds;
  const std::array<double*, 9> fields = {&result->loss,
                                         &result->balance_loss,
                                         &result->router_z_loss,
                                         &result->bytes_sent,
                                         &s.data,
                                         &s.forward,
                                         &s.backward,
                                         &s.reduce,
                                         &s.all_to_all};
  constexpr size_t kFirstMean = 4;
  std::array<double, fields.size()> values;
  for (size_t i = 0; i < fields.size(); ++i) values[i] = *fields[i];
  world.AllReduceSum(
      at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kDouble));
  for (size_t i = 0; i < fields.size(); ++i) {
    *fields[i] = i < kFirstMean ? values[i] : values[i] / world.size();
  }
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

HyperConfig::Execution ResolveExecution(const RunConfig& config, const ProcessMesh& mesh) {
  if (config.hyper().execution() != HyperConfig::auto_) return config.hyper().execution();
  // Per sparse layer and step, in units of 4 D A multiply-adds: generation costs q an expert, at
  // the source for all experts, at the owner for its own; application costs 1 a token, at the owner
  // as unevenly as tokens fall on experts (taken to be a quarter more on the busiest rank).
  const double degree = mesh.expert->size();
  const double saved =
      config.model().num_experts() * config.hyper().hidden_dim() * (1 - 1 / degree);
  const double tokens = static_cast<double>(config.train().batch_size()) *
                        config.model().sequence_length() / mesh.world->size();
  return saved > 0.25 * tokens ? HyperConfig::owner : HyperConfig::source;
}

std::unique_ptr<Gpt2> MakeModel(const RunConfig& config, const ProcessMesh& mesh) {
  std::shared_ptr<TokenDispatcher> dispatcher;
  if (config.model().kind() != ModelConfig::dense) {
    dispatcher = std::make_shared<TokenDispatcher>(mesh.expert, config.model().num_experts());
  }
  HyperConfig hyper = config.hyper();
  hyper.set_execution(ResolveExecution(config, mesh));
  return std::make_unique<Gpt2>(config.model(), hyper, config.runtime().seed(),
                                DtypeOf(config.runtime()), dispatcher);
}

Trainer::Trainer(const RunConfig& config, const ProcessMesh& mesh,
                 const std::vector<WeightedTokens>& train)
    : config_(config),
      mesh_(mesh),
      batches_(MakeBatches(config, *mesh.world, train)),
      model_(MakeModel(config, mesh)),
      buffers_(MakeFlatBuffers(ApplyNoDecay(config.optimizer(), model_->parameters()))),
      optimizer_(buffers_, OptionsOf(config.optimizer())) {}

StepResult Trainer::TrainStep(int64_t step) {
  StepResult result = ComputeGradients(step);
  Stopwatch watch;
  result.gradient_norm = GlobalGradientNorm(buffers_, *mesh_.expert);
  ClipGradients(buffers_, result.gradient_norm, config_.optimizer().clip_norm());
  result.learning_rate = LearningRate(config_.optimizer(), step, TotalSteps(config_));
  optimizer_.Step(result.learning_rate);
  model_->ParametersChanged();
  watch.Lap(&result.seconds.optimizer);
  return result;
}

StepResult Trainer::ComputeGradients(int64_t step) {
  StepResult result;
  const Traffic before = TotalTraffic(mesh_, false), all_to_all_before = TotalTraffic(mesh_, true);
  Stopwatch watch;
  for (FlatBuffer& buffer : buffers_) buffer.ZeroGradients();
  watch.Lap(&result.seconds.optimizer);
  for (int64_t i = 0; i < config_.train().micro_batches(); ++i) RunMicroBatch(step, i, &result);

  Stopwatch after_backward;
  model_->FinishBackward();
  after_backward.Lap(&result.seconds.backward);
  ReduceGradients(buffers_, mesh_);
  after_backward.Lap(&result.seconds.reduce);
  result.bytes_sent = static_cast<double>(TotalTraffic(mesh_, false).bytes - before.bytes);
  result.seconds.all_to_all = TotalTraffic(mesh_, true).seconds - all_to_all_before.seconds;
  ShareResult(&result, *mesh_.world);
  return result;
}

// Micro-batch i is a fixed set of the batch's rows, cut over the ranks afterwards; a rank may get
// none and still takes part.
void Trainer::RunMicroBatch(int64_t step, int64_t micro_batch, StepResult* result) {
  Stopwatch watch;
  const TrainConfig& train = config_.train();
  const Batch batch = batches_->Take(step * train.micro_batches() + micro_batch);
  watch.Lap(&result->seconds.data);

  ForwardMode mode;
  mode.training = true;
  mode.key = StepKey(step);
  const ModelOutput output = model_->Forward(batch, mode);
  const int64_t sequence_length = config_.model().sequence_length();
  // Divided by the tokens of the whole batch, so that every later reduction is a plain sum.
  const double batch_tokens =
      static_cast<double>(train.batch_size()) * static_cast<double>(sequence_length);
  const at::Tensor language_model = CrossEntropy(output.logits_TV, batch.labels_BS, batch_tokens);
  const BalanceLoss balance =
      ComputeBalanceLoss(output.routing, sequence_length, config_.model().balance_loss(),
                         {train.micro_batches(), train.batch_size()}, *mesh_.world);
  const at::Tensor router_z =
      RouterZLoss(output.routing, batch_tokens) * config_.model().router_z_coefficient();
  watch.Lap(&result->seconds.forward);

  (language_model + balance.share + router_z).backward();
  watch.Lap(&result->seconds.backward);
  result->loss += language_model.item<double>();
  result->balance_loss += balance.share.item<double>();
  result->router_z_loss += router_z.item<double>();
  result->tokens_LN =
      result->tokens_LN.defined() ? result->tokens_LN + balance.tokens_LN : balance.tokens_LN;
}

RandomKey Trainer::StepKey(int64_t step) const {
  return RandomKey{config_.runtime().seed(), 0}
      .Derive("training")
      .Derive(static_cast<uint64_t>(step));
}

double Trainer::Evaluate(const ValidationWindows& windows, int64_t max_windows) {
  const int64_t rows_per_pass =
      std::max(1, config_.train().batch_size() / config_.train().micro_batches());
  return EvaluateWindows(*model_, windows, max_windows, rows_per_pass, *mesh_.world);
}

double EvaluateWindows(Gpt2& model, const ValidationWindows& windows, int64_t max_windows,
                       int64_t rows_per_pass, Communicator& world) {
  const at::NoGradGuard no_grad;
  const int64_t stride =
      max_windows <= 0 ? 1 : std::max<int64_t>(1, (windows.size() + max_windows - 1) / max_windows);
  const int64_t chosen = (windows.size() + stride - 1) / stride;
  std::array<double, 2> sums = {0, 0};  // of losses, of labels counted
  for (int64_t begin = 0; begin < chosen; begin += rows_per_pass) {
    const int64_t pass = std::min(rows_per_pass, chosen - begin);
    const RowRange mine = RowsOfRank(pass, world.size(), world.rank());
    const Batch batch =
        windows.Windows((begin + mine.begin) * stride, (begin + mine.end) * stride, stride);
    const ModelOutput output = model.Forward(batch, ForwardMode{});
    sums[0] += CrossEntropy(output.logits_TV, batch.labels_BS, 1.0).item<double>();
    sums[1] += static_cast<double>(batch.labels_BS.ne(kIgnoredLabel).sum().item<int64_t>());
  }
  world.AllReduceSum(at::from_blob(sums.data(), {2}, at::kDouble));
  return sums[0] / sums[1];
}

}  // namespace hypermoe
