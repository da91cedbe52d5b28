// The validations of a run: what each one finds, which was the best, and whether to go on.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/run_data.h"
#include "runtime/status.h"
#include "runtime/trainer.h"
#include "runtime/validation_history.h"

namespace hypermoe {

struct ValidationResult {
  EvaluatedLosses losses;
  TaskScore score;  // of a task
};

// What is decided by validations follows from the first metric of the run's task and from the lines
// of metrics.jsonl alone, so that a run that goes on decides as one that was never stopped.
class RunValidation {
 public:
  // The arguments must outlive it. `config`: with its length in steps.
  RunValidation(const RunConfig& config, const RunData& data, Trainer& trainer,
                Communicator& world);

  // Recalls the validations of the run so far: rank 0 gives the lines that metrics.jsonl has of
  // them, other ranks nullptr. Collective.
  void Recall(const std::vector<nlohmann::json>* lines);

  // Of the model after `step` steps, on about `max_rows` rows or examples (0: all). Nothing if
  // `stop` was true on any rank. Collective; the same result on every rank.
  absl::StatusOr<std::optional<ValidationResult>> Validate(int64_t step, int64_t max_rows,
                                                           const std::function<bool()>& stop);

  const ValidationResult& latest() const { return latest_; }
  int64_t latest_step() const { return latest_step_; }  // of this process; -1: none
  // Whether train.patience is at its end.
  bool given_up() const;
  // With train.keep_best: 0: none yet.
  int64_t best_step() const { return config_.train().keep_best() ? history_.best_step() : 0; }

  // What a run that ends says of its task, in lines for people.
  std::string Summary() const;

 private:
  const RunConfig& config_;
  const RunData& data_;
  Trainer& trainer_;
  Communicator& world_;
  ValidationHistory history_;
  ValidationResult latest_;
  int64_t latest_step_ = -1;
};

// "accuracy 91.28".
std::string MetricText(const MetricValue& metric);

}  // namespace hypermoe
