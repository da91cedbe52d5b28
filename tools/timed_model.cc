#include "tools/timed_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/host_read.h"
#include "launch/build_identity.h"
#include "model/config_values.h"
#include "parallel/replica_check.h"
#include "runtime/beam_search.h"
#include "runtime/model_logits.h"
#include "runtime/run_length.h"
#include "runtime/watchdog.h"
#include "tools/benchmark.h"
#include "tools/random_tokens.h"

namespace hypermoe {
namespace {

std::shared_ptr<const RowFormat> FormatOf(const RunConfig& config) {
  return MakeRowFormat(config.data(), config.model()).value();
}

// As many rows as a step has.
std::unique_ptr<ValidationWindows> WindowsOf(const RunConfig& config) {
  const std::shared_ptr<const RowFormat> format = FormatOf(config);
  const int64_t tokens =
      format->sizes().stride * config.train().batch_size() + format->sizes().overlap;
  const std::vector<WeightedTokens> file = RandomTokens(tokens, config.model().vocab_size());
  return std::make_unique<ValidationWindows>(std::vector<TokenRange>{file[0].tokens}, format);
}

// Of this rank's share of the windows. No row ends before it has all of its tokens.
absl::Status Generate(TimedModel* model) {
  const at::NoGradGuard no_grad;
  Communicator& world = *model->mesh.world;
  const RowRange mine = UnitsOfRank(model->windows->size(), 1, world.size(), world.rank());
  Batch rows = model->windows->Windows(mine.begin, mine.end);
  const at::Tensor starts_B1 =
      at::full({rows.row_ids_B.numel(), 1}, model->config.model().decoder_start_id(), at::kLong);
  ModelLogits logits(model->trainer->model(), rows, /*encoder=*/true, /*cached=*/true);
  BeamSearchOptions options;
  options.max_length = 1 + model->new_tokens;
  return BeamSearch(options, starts_B1, std::ref(logits), world).status();
}

// Losses are finite, or an error.
absl::Status Work(int64_t step, TimedModel* model, StepResult* result) {
  switch (model->work) {
    case TimedWork::kTraining:
      *result = model->trainer->TrainStep(step);
      break;
    case TimedWork::kEvaluation:
      result->loss = model->trainer->Evaluate(*model->windows, 0)->loss;
      break;
    case TimedWork::kGeneration:
      return Generate(model);
  }
  if (std::isfinite(result->loss)) return absl::OkStatus();
  return InternalError(absl::StrCat(model->name, ": the loss of step ", step + 1, " is ",
                                    result->loss,
                                    ", expected a finite number: lower "
                                    "optimizer.learning_rate by --set"));
}

// Seconds of `work`, begun together on all ranks; it has taken as long as on the slowest.
double SecondsOf(Communicator& world, const std::function<void()>& work) {
  WaitForDevice(world.device());
  world.Barrier();
  const auto begin = std::chrono::steady_clock::now();
  work();
  WaitForDevice(world.device());
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  world.AllReduceMax(at::from_blob(&seconds, {1}, at::kDouble));
  return seconds;
}

}  // namespace

int64_t TimedModel::Tokens() const {
  const int64_t rows = config.train().batch_size();
  if (work == TimedWork::kGeneration) return rows * new_tokens;
  const RowFormat::Sizes& sizes = FormatOf(config)->sizes();
  return rows * (sizes.inputs + (HasEncoder(config.model()) ? sizes.labels : 0));
}

absl::Status SetUp(std::shared_ptr<Communicator> world, TimedModel* model) {
  const RunConfig& config = model->config;
  if (model->work == TimedWork::kGeneration && !HasEncoder(config.model())) {
    return UsageError(absl::StrCat(model->name,
                                   ": --new_tokens needs an encoder-decoder model: give --set "
                                   "model.family=switch_transformers"));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const RowFormat> format,
                   MakeRowFormat(config.data(), config.model()));
  constexpr int64_t kEpochsOfRows = 4;  // enough that no step sees a row twice
  const int64_t rows = config.train().batch_size() * TotalSteps(config);
  const int64_t tokens = kEpochsOfRows * rows * format->sizes().stride;
  const int degree = ExpertDegree(config, world->size());
  model->mesh = ProcessMesh::Create(std::move(world), degree);
  model->trainer = std::make_unique<Trainer>(config, model->mesh, RandomRows(config, tokens));
  if (model->work != TimedWork::kTraining) model->windows = WindowsOf(config);
  return absl::OkStatus();
}

absl::Status TimeStep(int64_t step, bool counts, Communicator& world, TimedModel* model) {
  std::unique_ptr<Watchdog> watchdog;
  if (!model->watchdog_dir.empty()) {
    ASSIGN_OR_RETURN(watchdog, Watchdog::Start({model->watchdog_dir, HostName(),
                                                model->config.runtime().hang_seconds()},
                                               world));
  }
  StepResult result;
  absl::Status status;
  const int64_t reads_before = HostRead::count();
  const double seconds = SecondsOf(world, [&] { status = Work(step, model, &result); });
  RETURN_IF_ERROR(status);
  model->host_reads = HostRead::count() - reads_before;
  model->loss = result.loss;
  model->bytes_sent = static_cast<double>(result.BytesSent());
  if (!counts) return absl::OkStatus();
  model->step_seconds.push_back(seconds);
  if (model->work == TimedWork::kTraining) model->phases.push_back(result.seconds);
  return absl::OkStatus();
}

absl::Status TimeDriftCheck(bool counts, Communicator& world, TimedModel* model) {
  std::string drift;
  const double seconds = SecondsOf(world, [&] {
    drift = FindDrift(model->trainer->buffers(), model->trainer->optimizer(), model->mesh);
  });
  if (!drift.empty()) return InternalError(absl::StrCat(model->name, ": ", drift));
  if (counts) model->drift_seconds.push_back(seconds);
  return absl::OkStatus();
}

}  // namespace hypermoe
