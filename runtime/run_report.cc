#include "runtime/run_report.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/model_cost.h"
#include "runtime/run_length.h"
#include "runtime/train_line.h"

namespace hypermoe {

RunReport::RunReport(const RunConfig& config, int num_ranks)
    : config_(config), num_ranks_(num_ranks), experts_(SparseLayers(config.model())) {}

absl::StatusOr<std::unique_ptr<RunReport>> RunReport::Open(const std::string& run_dir,
                                                           const RunConfig& config, int num_ranks,
                                                           int64_t start_step) {
  std::unique_ptr<RunReport> report(new RunReport(config, num_ranks));
  ASSIGN_OR_RETURN(report->metrics_, MetricsLog::Open(run_dir, start_step));
  const MetricsLog::LastLine& last = report->metrics_->kept();
  report->lacks_validation_ =
      start_step > 0 && last.step == start_step && last.kind != "validation";
  if (start_step < TotalSteps(config) || report->lacks_validation_) {
    ASSIGN_OR_RETURN(report->events_, EventFile::Create(run_dir, start_step + 1));
  }
  report->progress_ = std::make_unique<ProgressLine>(stderr);
  return report;
}

void RunReport::Write(const nlohmann::json& line) {
  if (status_.ok()) status_ = metrics_->Write(line);
  if (status_.ok()) status_ = events_->Write(line);
}

void RunReport::Step(int64_t step, const StepResult& result, double seconds) {
  const auto batch_tokens = static_cast<double>(BatchTokens(config_));
  smooth_step_seconds_ =
      smooth_step_seconds_ == 0 ? seconds : 0.95 * smooth_step_seconds_ + 0.05 * seconds;
  const auto mfu = [&](double step_seconds) {
    return FlopsUtilisation(config_, batch_tokens / step_seconds, num_ranks_,
                            result.DroppedShare());
  };
  StepRate rate;
  rate.tokens_per_second = batch_tokens / seconds;
  rate.mfu = mfu(seconds);
  Write(TrainLine(step, step * BatchTokens(config_), rate, result));

  const bool limited = config_.model().training_capacity().mode() != CapacityConfig::none;
  ProgressSample sample;
  sample.step = step;
  sample.steps = TotalSteps(config_);
  sample.loss = result.loss;
  sample.validation_loss = validation_loss_;
  sample.gradient_norm = result.gradient_norm;
  sample.tokens_per_second = batch_tokens / smooth_step_seconds_;
  sample.mfu = mfu(smooth_step_seconds_);
  sample.memory_bytes = result.memory_bytes;
  sample.load_max_over_mean = result.LoadMaxOverMean();
  if (limited) sample.dropped_share = result.DroppedShare();
  sample.all_to_all_share = result.seconds.all_to_all / result.seconds.total();
  sample.skipped_steps = result.skipped_steps;
  sample.seconds_left = smooth_step_seconds_ * static_cast<double>(sample.steps - step);
  progress_->Show(sample);
  if (result.skipped) {
    progress_->Note(absl::StrCat("warning: step ", step, " is skipped: ", NumbersText(result),
                                 "; parameters stay as they were"));
  }
  const std::string dead = experts_.Observe(result.tokens_LN);
  if (!dead.empty()) progress_->Note("warning: " + dead);
}

void RunReport::Validation(int64_t step, double loss) {
  validation_loss_ = loss;
  Write({{"kind", "validation"}, {"step", step}, {"loss", loss}, {"perplexity", std::exp(loss)}});
}

}  // namespace hypermoe
