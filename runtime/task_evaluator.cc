#include "runtime/task_evaluator.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/agreement.h"
#include "runtime/config_fields.h"
#include "runtime/file_util.h"
#include "runtime/handshake.h"
#include "runtime/loaded_model.h"
#include "runtime/pending_file.h"
#include "runtime/rate_progress.h"
#include "runtime/run_data.h"
#include "runtime/task_checks.h"
#include "runtime/task_evaluation.h"

namespace hypermoe {
namespace {

// Of the model as it was trained, if it was trained on this task; else as by default.
RunConfig ConfigOf(const RunConfig& trained, const EvaluateTaskOptions& options) {
  RunConfig config = trained;
  if (trained.data().task() != options.task) {
    config.clear_decoding();
    config.clear_data();
    config.mutable_data()->set_tokenizer(trained.data().tokenizer());
  }
  config.mutable_data()->set_task(options.task);
  if (!options.folder.empty()) config.mutable_data()->set_folder(options.folder);
  config.mutable_data()->MergeFrom(options.changes.data());
  config.mutable_decoding()->MergeFrom(options.changes.decoding());
  FillDefaults(&config);
  return config;
}

class Evaluation {
 public:
  Evaluation(const EvaluateTaskOptions& options, LoadedModel& loaded, std::FILE* progress)
      : options_(options),
        loaded_(loaded),
        world_(*loaded.mesh.world),
        progress_(world_.rank() == 0 ? progress : nullptr),
        config_(ConfigOf(loaded.info.config, options)) {}

  absl::StatusOr<EvaluateTaskResult> Execute() {
    RETURN_IF_ERROR(Agree(world_, Check()));
    if (!task_->is_text()) return Answers();
    return Text();
  }

 private:
  absl::Status Check() {
    RETURN_IF_ERROR(CheckTaskOfModel(config_));
    ASSIGN_OR_RETURN(task_, TaskNamed(config_.data().task()));
    if (!task_->is_text() || options_.output.empty()) return absl::OkStatus();
    return UsageError(absl::StrCat("--output is given, but task ", options_.task,
                                   " is plain text, which has no answers to write: leave it out"));
  }
  absl::StatusOr<EvaluateTaskResult> Text();
  absl::StatusOr<EvaluateTaskResult> Answers();
  absl::Status OpenExamples();
  absl::Status OpenOutput();
  absl::Status WriteOutput(const std::vector<std::string>& outputs);

  const EvaluateTaskOptions& options_;
  LoadedModel& loaded_;
  Communicator& world_;
  std::FILE* progress_;
  const RunConfig config_;
  const Task* task_ = nullptr;
  std::unique_ptr<Tokenizer> tokenizer_;
  TaskExamples examples_;
  std::unique_ptr<PendingFile> output_;  // on rank 0, if it is wanted
};

absl::StatusOr<EvaluateTaskResult> Evaluation::Text() {
  const auto rows = OpenTaskText(*task_, config_, options_.split);
  RETURN_IF_ERROR(Agree(world_, rows.status()));
  const RateProgress clock(nullptr, "", 0, {});
  const EvaluatedLosses losses =
      EvaluateWindows(*loaded_.model, **rows, 0, config_, world_).value();
  EvaluateTaskResult result;
  result.score = ScoreLosses(*task_, losses);
  result.tokens = (*rows)->num_predictions();
  result.seconds = clock.seconds();
  return result;
}

// Each rank reads the files, which may be others on other machines.
absl::Status Evaluation::OpenExamples() {
  ASSIGN_OR_RETURN(tokenizer_, TokenizerOf(config_));
  ASSIGN_OR_RETURN(examples_, OpenTaskExamples(*task_, config_, options_.split, *tokenizer_));
  return absl::OkStatus();
}

absl::Status Evaluation::OpenOutput() {
  if (world_.rank() > 0 || options_.output.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(output_, PendingFile::Create(options_.output));
  return absl::OkStatus();
}

absl::Status Evaluation::WriteOutput(const std::vector<std::string>& outputs) {
  if (output_ == nullptr) return absl::OkStatus();
  std::vector<std::string> lines;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TaskExample& example = examples_.examples[i];
    const nlohmann::ordered_json line = {{"id", example.id},
                                         {"source", example.source},
                                         {"prediction", outputs[i]},
                                         {"references", example.references}};
    lines.push_back(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  return WriteLines(lines, output_.get());
}

absl::StatusOr<EvaluateTaskResult> Evaluation::Answers() {
  RETURN_IF_ERROR(Agree(world_, OpenExamples()));
  RETURN_IF_ERROR(CheckAlike(world_, {{"the examples", FingerprintOf(examples_),
                                       "give all machines the same files of the task"}}));
  RETURN_IF_ERROR(Agree(world_, OpenOutput()));
  RateProgress rate(progress_, "evaluate", static_cast<int64_t>(examples_.examples.size()),
                    {"examples"});
  EvaluationHooks hooks;
  hooks.progress = [&](int64_t done) { rate.Update(done); };
  ASSIGN_OR_RETURN(
      std::optional<TaskOutcome> decoded,
      EvaluateExamples(*task_, examples_, 0, config_, *tokenizer_, *loaded_.model, hooks, world_));
  TaskOutcome outcome = std::move(decoded).value();  // nobody asks it to stop
  EvaluateTaskResult result;
  result.score = std::move(outcome.score);
  result.seconds = rate.seconds();
  result.cut_sources = examples_.tokens->cut_sources;
  // Without labels there are no targets but a stand-in.
  if (examples_.labelled()) result.cut_targets = examples_.tokens->cut_targets;
  RETURN_IF_ERROR(Agree(world_, WriteOutput(outcome.outputs)));
  return result;
}

}  // namespace

absl::StatusOr<EvaluateTaskResult> EvaluateTask(const EvaluateTaskOptions& options,
                                                std::shared_ptr<Communicator> world,
                                                int expert_parallel, std::FILE* progress) {
  ASSIGN_OR_RETURN(LoadedModel loaded,
                   LoadModel(options.checkpoint, options.dtype, world, expert_parallel));
  ASSIGN_OR_RETURN(EvaluateTaskResult result, Evaluation(options, loaded, progress).Execute());
  result.checkpoint = loaded.checkpoint;
  result.step = loaded.info.step;
  return result;
}

}  // namespace hypermoe
