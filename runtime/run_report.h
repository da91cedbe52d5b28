// What a run says while it goes on, on the one rank that speaks: metrics.jsonl, TensorBoard events,
// the progress line and warnings.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/event_file.h"
#include "runtime/expert_watch.h"
#include "runtime/metrics_log.h"
#include "runtime/progress.h"
#include "runtime/run_validation.h"
#include "runtime/status.h"
#include "runtime/trainer.h"

namespace hypermoe {

class RunReport {
 public:
  // Opens the files in run_dir, which exists, of a run of `num_ranks` ranks that has taken
  // `start_step` steps; later lines in metrics.jsonl are dropped. Progress goes to stderr.
  static absl::StatusOr<std::unique_ptr<RunReport>> Open(const std::string& run_dir,
                                                         const RunConfig& config,
                                                         std::shared_ptr<const TrainingData> data,
                                                         int num_ranks, int64_t start_step);

  // The `step`th step of the run, from 1, which took `seconds`.
  void Step(int64_t step, const StepResult& result, double seconds);
  void Validation(int64_t step, const ValidationResult& result);
  // Whether start_step has its training line but no validation: it had none, or a stop cut it
  // short.
  bool lacks_validation() const { return lacks_validation_; }
  // The validations up to start_step, as lines of metrics.jsonl.
  const std::vector<nlohmann::json>& kept_validations() const {
    return metrics_->kept_validations();
  }
  // A line of its own for people.
  void Note(const std::string& text) { progress_->Note(text); }
  // Ends the progress line; only Validation may follow.
  void EndProgress() { progress_.reset(); }

  // The first failure to write, after which nothing more was written.
  const absl::Status& status() const { return status_; }
  const std::string& metrics_path() const { return metrics_->path(); }

 private:
  RunReport(const RunConfig& config, std::shared_ptr<const TrainingData> data, int num_ranks);
  void Write(const nlohmann::json& line);
  std::optional<double> Utilisation(double tokens_per_second, const StepResult& result) const;

  RunConfig config_;
  std::shared_ptr<const TrainingData> data_;
  int num_ranks_;
  int64_t tokens_ = 0;  // of the run so far
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<EventFile> events_;  // of a run that is not complete
  bool lacks_validation_ = false;
  std::unique_ptr<ProgressLine> progress_;
  ExpertWatch experts_;
  absl::Status status_;
  double smooth_step_seconds_ = 0, smooth_step_tokens_ = 0;
  std::optional<double> validation_loss_;
  std::string metric_;  // of the latest validation of a task
};

}  // namespace hypermoe
