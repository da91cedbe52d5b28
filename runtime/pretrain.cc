#include "runtime/pretrain.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/config_loader.h"
#include "runtime/dataset.h"
#include "runtime/decay_groups.h"
#include "runtime/event_file.h"
#include "runtime/file_util.h"
#include "runtime/handshake.h"
#include "runtime/hashed_file.h"
#include "runtime/metrics_log.h"
#include "runtime/progress.h"
#include "runtime/run_length.h"
#include "runtime/train_line.h"
#include "runtime/trainer.h"

namespace hypermoe {
namespace {

bool IsDue(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

// One run on this rank. Rank 0 alone writes metrics and shows progress; a failure there is kept
// until the ranks next agree.
class Run {
 public:
  Run(const PretrainOptions& options, const ProcessMesh& mesh)
      : options_(options),
        config_(options.config),
        mesh_(mesh),
        first_rank_(mesh.world->rank() == 0) {}

  absl::Status Execute() {
    RETURN_IF_ERROR(Open());
    RETURN_IF_ERROR(Resume());
    RETURN_IF_ERROR(Agree(*mesh_.world, OpenFolder()));
    for (int64_t step = start_; step < TotalSteps(config_); ++step) {
      RETURN_IF_ERROR(Step(step));
      const bool stop = step + 1 == options_.stop_at_step && step + 1 < TotalSteps(config_);
      if (stop) return StopHere(step + 1);
    }
    return Finish();
  }

 private:
  absl::Status Open();
  absl::Status Resume();
  absl::Status LoadFrom(const std::string& checkpoint);
  absl::Status OpenFolder();
  absl::Status Step(int64_t step);
  absl::Status Validate(int64_t steps_taken, int64_t max_windows);
  absl::Status Save(int64_t steps_taken);
  absl::Status StopHere(int64_t steps_taken);
  absl::Status Finish();
  void Report(int64_t steps_taken, const StepResult& result, double seconds);
  void Log(const nlohmann::json& line);

  const PretrainOptions& options_;
  const RunConfig& config_;
  const ProcessMesh& mesh_;
  const bool first_rank_;
  Splits splits_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<ValidationWindows> windows_;
  std::unique_ptr<MetricsLog> metrics_;     // rank 0
  std::unique_ptr<EventFile> events_;       // rank 0 of a run that is not complete
  std::unique_ptr<ProgressLine> progress_;  // rank 0
  absl::Status log_status_;                 // of rank 0's writes
  int64_t start_ = 0;                       // steps taken before this process
  int64_t saved_ = -1;                      // step of the newest checkpoint
  double smooth_step_seconds_ = 0;
  std::optional<double> validation_loss_;
};

absl::Status Run::Open() {
  absl::StatusOr<Splits> splits = OpenSplits(config_.data(), config_.model());
  RETURN_IF_ERROR(Agree(*mesh_.world, splits.status()));
  splits_ = *std::move(splits);
  RETURN_IF_ERROR(CheckAlike(
      *mesh_.world, {{"the data", splits_.fingerprint, "give all machines the same token files"}}));
  trainer_ = std::make_unique<Trainer>(config_, mesh_, splits_.train);
  RETURN_IF_ERROR(CheckNoDecay(config_.optimizer(), trainer_->model().parameters()));
  windows_ =
      std::make_unique<ValidationWindows>(splits_.validation, config_.model().sequence_length());
  return absl::OkStatus();
}

absl::Status Run::Resume() {
  absl::StatusOr<std::optional<std::string>> latest = LatestCheckpoint(options_.run_dir);
  RETURN_IF_ERROR(Agree(*mesh_.world, latest.status()));
  // Rank 0 decides for all, so that ranks on machines that do not share the folder fail instead of
  // starting apart.
  const std::string checkpoint = mesh_.world->AllGatherText(latest->value_or(""))[0];
  const bool used =
      std::filesystem::exists(options_.run_dir + "/metrics.jsonl") || !checkpoint.empty();
  absl::Status status;
  if (used && !options_.resume) {
    status = UsageError(
        absl::StrCat("--run_dir ", options_.run_dir,
                     " already holds a run, and --resume=never asks for a new one: give another "
                     "--run_dir, or --resume=auto to go on with it"));
  } else if (!checkpoint.empty()) {
    status = LoadFrom(checkpoint);
  }
  RETURN_IF_ERROR(Agree(*mesh_.world, status));
  if (options_.stop_at_step > 0 && options_.stop_at_step <= start_) {
    return UsageError(absl::StrCat("--stop_at_step ", options_.stop_at_step, " is not after step ",
                                   start_, ", which ", options_.run_dir,
                                   " has reached: give a larger one"));
  }
  return absl::OkStatus();
}

absl::Status Run::LoadFrom(const std::string& checkpoint) {
  ASSIGN_OR_RETURN(const CheckpointInfo info, ReadCheckpointInfo(checkpoint));
  RETURN_IF_ERROR(CheckResumable(info.config, config_, options_.run_dir));
  if (info.data_fingerprint != splits_.fingerprint) {
    return ConfigError(absl::StrCat("the data of ", checkpoint, " (", info.data_fingerprint,
                                    ") and of data.train now (", splits_.fingerprint,
                                    ") differ: give the same token files, or another --run_dir"));
  }
  RETURN_IF_ERROR(LoadCheckpoint(checkpoint, config_.model().num_experts(), trainer_->buffers(),
                                 &trainer_->optimizer()));
  trainer_->model().ParametersChanged();
  start_ = saved_ = info.step;
  if (!first_rank_) return absl::OkStatus();
  std::fprintf(stderr, "resuming from %s\n", checkpoint.c_str());
  if (info.world_size != mesh_.world->size() || info.expert_parallel != mesh_.expert->size() ||
      info.threads != options_.threads) {
    std::fprintf(stderr,
                 "note: the checkpoint was written by %d ranks (expert degree %d, %d threads "
                 "each), this job has %d "
                 "(%d, %d): equal up to rounding, not bit for bit\n",
                 info.world_size, info.expert_parallel, info.threads, mesh_.world->size(),
                 mesh_.expert->size(), options_.threads);
  }
  return absl::OkStatus();
}

// What only rank 0 has: the run's folder, its configuration, metrics and progress.
absl::Status Run::OpenFolder() {
  if (!first_rank_) return absl::OkStatus();
  RETURN_IF_ERROR(CreateFolders(options_.run_dir));
  RETURN_IF_ERROR(WriteFileDurably(options_.run_dir + "/config.textproto", ConfigText(config_)));
  ASSIGN_OR_RETURN(metrics_, MetricsLog::Open(options_.run_dir, start_));
  if (start_ < TotalSteps(config_)) {
    ASSIGN_OR_RETURN(events_, EventFile::Create(options_.run_dir, start_ + 1));
  }
  progress_ = std::make_unique<ProgressLine>(stderr);
  int64_t parameters = 0;
  for (const FlatBuffer& buffer : trainer_->buffers()) {
    const bool expert = buffer.group() == ParameterGroup::kExpert;
    if (!expert) parameters += buffer.values().numel();
    for (const Parameter* parameter : buffer.parameters()) {
      if (!expert || parameter->value.size(0) == 0) continue;
      parameters +=
          parameter->value.numel() / parameter->value.size(0) * config_.model().num_experts();
    }
  }
  progress_->Note(absl::StrFormat(
      "%s: %d parameters, %d ranks, expert degree %d, %d threads a rank, %d training tokens",
      ModelConfig::Kind_Name(config_.model().kind()), parameters, mesh_.world->size(),
      mesh_.expert->size(), options_.threads, NumTokens(splits_.train)));
  if (config_.model().kind() == ModelConfig::hyper) {
    const HyperConfig::Execution execution = ResolveExecution(config_, mesh_);
    progress_->Note(
        absl::StrCat("HyperExperts: execution ",
                     execution == HyperConfig::owner    ? "owner"
                     : execution == HyperConfig::source ? "source"
                                                        : "per_token",
                     config_.hyper().execution() == HyperConfig::auto_ ? " (chosen by auto)" : ""));
  }
  return absl::OkStatus();
}

absl::Status Run::Step(int64_t step) {
  const auto begin = std::chrono::steady_clock::now();
  const StepResult result = trainer_->TrainStep(step);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const int64_t taken = step + 1;
  // Global values, so every rank decides alike.
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    return InternalError(
        absl::StrFormat("step %d: loss %g, gradient norm %g: training has diverged; lower "
                        "optimizer.learning_rate and go on from the last checkpoint",
                        taken, result.loss, result.gradient_norm));
  }
  Report(taken, result, seconds.count());
  const bool last = taken == TotalSteps(config_);
  if (!last && IsDue(config_.train().validation_every(), taken)) {
    RETURN_IF_ERROR(Validate(taken, config_.train().validation_windows()));
  }
  if (!last && IsDue(config_.checkpoint().every(), taken)) RETURN_IF_ERROR(Save(taken));
  return absl::OkStatus();
}

void Run::Report(int64_t steps_taken, const StepResult& result, double seconds) {
  if (!first_rank_) return;
  const double tokens_per_second = static_cast<double>(BatchTokens(config_)) / seconds;
  Log(TrainLine(steps_taken, steps_taken * BatchTokens(config_), tokens_per_second, result));
  smooth_step_seconds_ =
      smooth_step_seconds_ == 0 ? seconds : 0.95 * smooth_step_seconds_ + 0.05 * seconds;
  ProgressSample sample;
  sample.step = steps_taken;
  sample.steps = TotalSteps(config_);
  sample.loss = result.loss;
  sample.validation_loss = validation_loss_;
  sample.gradient_norm = result.gradient_norm;
  sample.tokens_per_second = static_cast<double>(BatchTokens(config_)) / smooth_step_seconds_;
  sample.load_max_over_mean = result.LoadMaxOverMean();
  sample.all_to_all_share = result.seconds.all_to_all / result.seconds.total();
  sample.seconds_left = smooth_step_seconds_ * static_cast<double>(sample.steps - steps_taken);
  progress_->Show(sample);
}

void Run::Log(const nlohmann::json& line) {
  if (first_rank_ && log_status_.ok()) log_status_ = metrics_->Write(line);
  if (first_rank_ && log_status_.ok()) log_status_ = events_->Write(line);
}

absl::Status Run::Validate(int64_t steps_taken, int64_t max_windows) {
  const double loss = trainer_->Evaluate(*windows_, max_windows);
  validation_loss_ = loss;
  // A run that was complete when it was resumed has this line already.
  if (saved_ != steps_taken)
    Log({{"kind", "validation"},
         {"step", steps_taken},
         {"loss", loss},
         {"perplexity", std::exp(loss)}});
  return Agree(*mesh_.world, log_status_);
}

absl::Status Run::Save(int64_t steps_taken) {
  if (saved_ == steps_taken) return absl::OkStatus();
  RETURN_IF_ERROR(Agree(*mesh_.world, log_status_));
  CheckpointInfo info;
  info.step = steps_taken;
  info.config = config_;
  info.data_fingerprint = splits_.fingerprint;
  info.world_size = mesh_.world->size();
  info.expert_parallel = mesh_.expert->size();
  info.threads = options_.threads;
  RETURN_IF_ERROR(
      SaveCheckpoint(options_.run_dir, info, trainer_->buffers(), trainer_->optimizer(), mesh_));
  saved_ = steps_taken;
  if (!first_rank_ || config_.checkpoint().keep() == 0) return absl::OkStatus();
  const absl::Status removed =
      RemoveOldCheckpoints(options_.run_dir, steps_taken, config_.checkpoint().keep());
  if (!removed.ok()) {
    progress_->Note(absl::StrCat("warning: old checkpoints stay: ", removed.message()));
  }
  return absl::OkStatus();
}

absl::Status Run::StopHere(int64_t steps_taken) {
  RETURN_IF_ERROR(Save(steps_taken));
  progress_.reset();
  return Stopped(absl::StrCat("stopped after step ", steps_taken,
                              " as --stop_at_step asked; saved in ", options_.run_dir,
                              ": the same command without it goes on"));
}

absl::Status Run::Finish() {
  // In this order everywhere: a checkpoint says that all lines up to its step have been written.
  RETURN_IF_ERROR(Validate(TotalSteps(config_), 0));
  RETURN_IF_ERROR(Save(TotalSteps(config_)));
  progress_.reset();
  const absl::StatusOr<std::string> checkpoint = ResolveCheckpoint(options_.run_dir);
  RETURN_IF_ERROR(Agree(*mesh_.world, checkpoint.status()));
  if (!first_rank_) return absl::OkStatus();
  std::printf("validation  loss %.4f nats a token, perplexity %.3f, over %lld tokens\n",
              *validation_loss_, std::exp(*validation_loss_),
              static_cast<long long>(windows_->num_predictions()));
  std::printf("checkpoint  %s\nmetrics     %s\n", checkpoint->c_str(), metrics_->path().c_str());
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace

absl::Status Pretrain(const PretrainOptions& options, const ProcessMesh& mesh) {
  return Run(options, mesh).Execute();
}

}  // namespace hypermoe
