#include "runtime/pretrain.h"

#include <ATen/ops/from_blob.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "parallel/progress_marks.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/checkpoint_saver.h"
#include "runtime/checkpoint_space.h"
#include "runtime/config_loader.h"
#include "runtime/file_util.h"
#include "runtime/handshake.h"
#include "runtime/memory_plan.h"
#include "runtime/number_guard.h"
#include "runtime/parameter_patterns.h"
#include "runtime/process_memory.h"
#include "runtime/resume.h"
#include "runtime/run_data.h"
#include "runtime/run_description.h"
#include "runtime/run_length.h"
#include "runtime/run_report.h"
#include "runtime/run_validation.h"
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
        first_rank_(mesh.world->rank() == 0),
        stop_(options.stop_sources) {}

  absl::Status Execute() {
    absl::Status status = Train();
    // Training has failed, on all ranks alike: a checkpoint under way is the more welcome.
    if (saver_ != nullptr) status.Update(saver_->Wait());
    return status;
  }

 private:
  absl::Status Train() {
    RETURN_IF_ERROR(Open());
    RETURN_IF_ERROR(StopIfAsked(start_));
    RETURN_IF_ERROR(Resume());
    RETURN_IF_ERROR(PrepareSaving());
    RETURN_IF_ERROR(Agree(*mesh_.world, OpenFolder()));
    RETURN_IF_ERROR(RecallValidations());
    RETURN_IF_ERROR(StopIfAsked(start_));
    RETURN_IF_ERROR(MakeUpForValidation());
    int64_t taken = start_;
    while (!AtEnd(taken)) {
      RETURN_IF_ERROR(Step(taken));
      ++taken;
      const bool stop = taken == options_.stop_at_step && !AtEnd(taken);
      if (stop) return StopHere(taken, "--stop_at_step");
    }
    return Finish(taken);
  }

  // Whether a run that has taken so many steps takes no more.
  bool AtEnd(int64_t steps_taken) const {
    return steps_taken == TotalSteps(config_) || validation_->given_up();
  }

  absl::Status Open();
  absl::Status Resume();
  int64_t End() const;  // of the steps that this process is to take
  absl::Status CheckProfiledSteps() const;
  absl::Status PrepareSaving();
  absl::Status OpenFolder();
  absl::Status RecallValidations();
  absl::Status NameBest();
  absl::Status Step(int64_t step);
  absl::Status MakeUpForValidation();
  absl::Status Validate(int64_t steps_taken, int64_t max_rows);
  absl::Status PrepareSave(int64_t steps_taken);
  absl::Status Save(int64_t steps_taken);
  absl::Status SaveLast(int64_t steps_taken);
  absl::Status StopIfAsked(int64_t steps_taken);
  absl::Status StopAsAsked(int64_t steps_taken);
  absl::Status StopHere(int64_t steps_taken, const std::string& by);
  absl::Status Finish(int64_t steps_taken);
  absl::Status ReportStatus() const { return first_rank_ ? report_->status() : absl::OkStatus(); }

  const PretrainOptions& options_;
  RunConfig config_;  // as given, but with its length in steps
  const ProcessMesh& mesh_;
  const bool first_rank_;
  StopRequest stop_;
  RunData data_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<NumberGuard> numbers_;
  std::unique_ptr<RunValidation> validation_;
  std::unique_ptr<RunReport> report_;  // rank 0
  std::unique_ptr<StepProfiler> profiler_;
  std::unique_ptr<CheckpointSaver> saver_;
  int64_t resident_before_ = 0;   // bytes, when the trainer was built
  int64_t training_memory_ = 0;   // bytes at most, without the last save; 0: not trained here
  int64_t start_ = 0;             // steps taken before this process
  bool validation_owed_ = false;  // that of start_, which a stop has cut short
};

absl::Status Run::Open() {
  MarkPhase("init");
  absl::StatusOr<RunData> data = OpenRunData(config_);
  RETURN_IF_ERROR(Agree(*mesh_.world, data.status()));
  data_ = *std::move(data);
  RETURN_IF_ERROR(CheckAlike(
      *mesh_.world, {{"the data", data_.fingerprint, "give all machines the same files"}}));
  ASSIGN_OR_RETURN(config_, LengthInSteps(options_.config, data_.epoch_rows));
  resident_before_ = ReadProcessMemory().resident;
  trainer_ = std::make_unique<Trainer>(config_, mesh_, data_.train);
  RETURN_IF_ERROR(CheckPatterns(config_, trainer_->model().parameters()));
  numbers_ = std::make_unique<NumberGuard>(config_.train(), *trainer_, mesh_);
  profiler_ = std::make_unique<StepProfiler>(options_.profile, options_.run_dir, mesh_, *trainer_);
  validation_ = std::make_unique<RunValidation>(config_, data_, *trainer_, *mesh_.world);
  return absl::OkStatus();
}

absl::Status Run::Resume() {
  MarkPhase("load");
  ASSIGN_OR_RETURN(const std::optional<int64_t> resumed,
                   ResumeOrStart(options_, data_.fingerprint, mesh_, *trainer_));
  start_ = resumed.value_or(0);
  if (options_.stop_at_step > 0 && options_.stop_at_step <= start_) {
    return UsageError(absl::StrCat("--stop_at_step ", options_.stop_at_step, " is not after step ",
                                   start_, ", which ", options_.run_dir,
                                   " has reached: give a larger one"));
  }
  return CheckProfiledSteps();
}

int64_t Run::End() const {
  return options_.stop_at_step > 0 ? std::min(options_.stop_at_step, TotalSteps(config_))
                                   : TotalSteps(config_);
}

// That every step to profile is one that this process takes.
absl::Status Run::CheckProfiledSteps() const {
  const ProfiledSteps& profile = options_.profile;
  if (profile.first == 0 || (profile.first > start_ && profile.last <= End())) {
    return absl::OkStatus();
  }
  return UsageError(absl::StrCat("--profile_steps ", profile.first, ":", profile.last,
                                 " is not within steps ", start_ + 1, " to ", End(),
                                 ", which are to be taken: give steps of them"));
}

// Before the run's folder is touched. Rank 0 writes there most, and speaks for all.
absl::Status Run::PrepareSaving() {
  CheckpointInfo info;
  info.config = options_.config;
  info.data_fingerprint = data_.fingerprint;
  info.world_size = mesh_.world->size();
  info.expert_parallel = mesh_.expert->size();
  info.threads = options_.threads;
  saver_ =
      std::make_unique<CheckpointSaver>(options_.run_dir, info, mesh_, start_,
                                        [this](const std::string& text) { report_->Note(text); });
  absl::StatusOr<std::string> space = "";
  if (first_rank_) space = CheckSpace(options_.run_dir, config_, start_, End());
  RETURN_IF_ERROR(Agree(*mesh_.world, space.status()));
  if (!space->empty()) std::fprintf(stderr, "%s\n", space->c_str());
  return absl::OkStatus();
}

// What only rank 0 has: the run's folder, its configuration, metrics and progress.
absl::Status Run::OpenFolder() {
  if (!first_rank_) return absl::OkStatus();
  // Now, not with the next save: a complete run has none, and a disk may be short of the space.
  if (const absl::Status removed = RemoveLeftovers(options_.run_dir); !removed.ok())
    std::fprintf(stderr, "warning: what a killed save has left stays: %s\n",
                 std::string(removed.message()).c_str());
  RETURN_IF_ERROR(WriteRunConfig(options_.run_dir, options_.config));
  ASSIGN_OR_RETURN(report_, RunReport::Open(options_.run_dir, config_, data_.train,
                                            mesh_.world->size(), start_));
  RETURN_IF_ERROR(ForgetStop(options_.run_dir));
  report_->Note(DescribeRun(config_, data_, mesh_, options_.threads));
  return absl::OkStatus();
}

// Which validation was the best so far, and whether the run has given up.
absl::Status Run::RecallValidations() {
  validation_->Recall(first_rank_ ? &report_->kept_validations() : nullptr);
  return Agree(*mesh_.world, NameBest());
}

absl::Status Run::NameBest() { return saver_->set_best(validation_->best_step()); }

absl::Status Run::Step(int64_t step) {
  const int64_t taken = step + 1;
  const bool profiled = profiler_->Covers(taken);
  if (profiled) RETURN_IF_ERROR(Agree(*mesh_.world, profiler_->Begin()));
  const auto begin = std::chrono::steady_clock::now();
  const StepResult result = trainer_->TrainStep(step, [this] {
    return StepVotes{.stop = stop_.Asked() ? 1 : 0, .saving = saver_->working() ? 1 : 0};
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (profiled) RETURN_IF_ERROR(Agree(*mesh_.world, profiler_->End(taken)));
  if (first_rank_) report_->Step(taken, result, seconds.count());
  if (options_.after_step) options_.after_step(taken, *trainer_);
  RETURN_IF_ERROR(numbers_->CheckStep(taken, result));
  RETURN_IF_ERROR(saver_->Advance(result.votes.saving));
  if (result.votes.stop > 0) return StopAsAsked(taken);
  if (taken == TotalSteps(config_)) return absl::OkStatus();
  const bool validation = IsDue(config_.train().validation_every(), taken);
  const bool checkpoint = IsDue(config_.checkpoint().every(), taken);
  if (validation) RETURN_IF_ERROR(Validate(taken, config_.train().validation_windows()));
  if (validation_->given_up()) return absl::OkStatus();
  if (checkpoint || (validation && validation_->best_step() == taken)) RETURN_IF_ERROR(Save(taken));
  // Both may have taken long, and what has just been saved need not be saved again a step later.
  return validation || checkpoint ? StopIfAsked(taken) : absl::OkStatus();
}

// The line that metrics.jsonl would have by now, had the run not been stopped before it.
absl::Status Run::MakeUpForValidation() {
  const bool last = start_ == TotalSteps(config_);
  const bool due = last || IsDue(config_.train().validation_every(), start_);
  validation_owed_ = AnyRank(*mesh_.world, first_rank_ && report_->lacks_validation() && due);
  if (!validation_owed_ || last) return absl::OkStatus();  // the last one is Finish's
  return Validate(start_, config_.train().validation_windows());
}

absl::Status Run::Validate(int64_t steps_taken, int64_t max_rows) {
  // It may take long, and has no votes by which a checkpoint under way would be published.
  RETURN_IF_ERROR(saver_->Wait());
  MarkPhase("evaluate");
  ASSIGN_OR_RETURN(const std::optional<ValidationResult> result,
                   validation_->Validate(steps_taken, max_rows, [this] { return stop_.Asked(); }));
  if (!result.has_value()) return StopAsAsked(steps_taken);
  // A run that was complete when it was resumed has this line already.
  if (first_rank_ && (validation_owed_ || saver_->newest() != steps_taken))
    report_->Validation(steps_taken, *result);
  validation_owed_ = false;
  absl::Status status = ReportStatus();
  status.Update(NameBest());
  return Agree(*mesh_.world, status);
}

// A checkpoint says that all lines up to its step have been written (but for a validation that a
// stop has cut short), and holds what all ranks agree about.
absl::Status Run::PrepareSave(int64_t steps_taken) {
  RETURN_IF_ERROR(numbers_->CheckReplicas(steps_taken));
  MarkPhase("save");
  return Agree(*mesh_.world, ReportStatus());
}

absl::Status Run::Save(int64_t steps_taken) {
  RETURN_IF_ERROR(PrepareSave(steps_taken));
  return saver_->Save(steps_taken, trainer_->buffers(), trainer_->optimizer());
}

absl::Status Run::SaveLast(int64_t steps_taken) {
  if (steps_taken > start_) training_memory_ = ReadProcessMemory().peak_resident - resident_before_;
  RETURN_IF_ERROR(PrepareSave(steps_taken));
  return saver_->SaveLast(steps_taken, trainer_->buffers(), trainer_->optimizer());
}

absl::Status Run::StopIfAsked(int64_t steps_taken) {
  return AnyRank(*mesh_.world, stop_.Asked()) ? StopAsAsked(steps_taken) : absl::OkStatus();
}

absl::Status Run::StopAsAsked(int64_t steps_taken) {
  for (const std::string& by : mesh_.world->AllGatherText(stop_.by())) {
    if (!by.empty()) return StopHere(steps_taken, by);
  }
  return InternalError("no rank knows who asked it to stop");
}

absl::Status Run::StopHere(int64_t steps_taken, const std::string& by) {
  // Without a step of its own this process has nothing new to save.
  if (steps_taken > start_) RETURN_IF_ERROR(SaveLast(steps_taken));
  const bool at_step = options_.stop_at_step > 0 && steps_taken == options_.stop_at_step;
  RETURN_IF_ERROR(Agree(
      *mesh_.world, first_rank_ ? RecordStop(options_.run_dir, by, at_step) : absl::OkStatus()));
  if (report_ != nullptr) report_->EndProgress();
  const std::string when =
      steps_taken > start_
          ? absl::StrCat("stopped after step ", steps_taken, " as ", by, " asked; saved in ",
                         options_.run_dir)
          : absl::StrCat("stopped before ", start_ > 0 ? "a step of its own" : "the first step",
                         " as ", by, " asked");
  return Stopped(
      absl::StrCat(when, ": the same command ", at_step ? "without it goes on" : "goes on"));
}

absl::Status Run::Finish(int64_t steps_taken) {
  if (validation_->latest_step() != steps_taken) RETURN_IF_ERROR(Validate(steps_taken, 0));
  RETURN_IF_ERROR(SaveLast(steps_taken));
  if (first_rank_) report_->EndProgress();
  mesh_.world->AllReduceMax(at::from_blob(&training_memory_, {1}, at::kLong));
  if (!first_rank_) return absl::OkStatus();
  const int64_t steps = TotalSteps(config_), best = validation_->best_step();
  if (steps_taken < steps) {
    std::printf("ended       after step %lld of %lld, as train.patience asks\n",
                static_cast<long long>(steps_taken), static_cast<long long>(steps));
  }
  const double loss = validation_->latest().losses.loss;
  std::printf("validation  loss %.4f nats a token, perplexity %.3f, over %lld tokens\n%s", loss,
              std::exp(loss), static_cast<long long>(data_.validation->num_predictions()),
              validation_->Summary().c_str());
  if (training_memory_ > 0) {
    std::printf("memory      %s at most on a rank for training, computed %s\n",
                FormatBytes(training_memory_).c_str(),
                FormatBytes(PlanMemoryOf(config_, data_, mesh_).total()).c_str());
  }
  std::printf("checkpoint  %s\nmetrics     %s\n",
              CheckpointPath(options_.run_dir, best > 0 ? best : saver_->newest()).c_str(),
              report_->metrics_path().c_str());
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace

absl::Status Pretrain(const PretrainOptions& options, const ProcessMesh& mesh) {
  return Run(options, mesh).Execute();
}

}  // namespace hypermoe
