#include "runtime/run_data.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/dataset.h"
#include "runtime/file_util.h"
#include "runtime/task_settings.h"

namespace hypermoe {
namespace {

std::string DigestText(const void* data, size_t size) { return DigestOf(data, size).xxh3_128; }

template <typename T>
std::string DigestText(const std::vector<T>& values) {
  return DigestText(values.data(), values.size() * sizeof(T));
}

// A text's ids in memory.
class TextTokens : public TokenFile {
 public:
  explicit TextTokens(std::vector<int32_t> ids)
      : ids_(std::move(ids)), fingerprint_(absl::StrCat(ids_.size(), ":", DigestText(ids_))) {}
  int64_t num_tokens() const override { return static_cast<int64_t>(ids_.size()); }
  int64_t num_documents() const override { return 1; }
  void Read(int64_t begin, int64_t count, int64_t* ids) const override {
    std::copy_n(ids_.begin() + begin, count, ids);
  }
  const std::string& fingerprint() const override { return fingerprint_; }
  // The tokenizer's: ValidateConfig has compared its vocabulary with the model's.
  absl::Status CheckIds(int64_t) const override { return absl::OkStatus(); }

 private:
  std::vector<int32_t> ids_;
  std::string fingerprint_;
};

// The whole text of a split.
absl::StatusOr<TokenRange> OpenText(const Task& task, const RunConfig& config, TaskSplit split,
                                    const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(const std::string path, TaskFile(task, config.data().folder(), split));
  ASSIGN_OR_RETURN(const std::vector<TaskExample> text,
                   task.ReadFile(path, config.data().templates(), TaskUse::kEvaluation));
  std::vector<int32_t> ids;
  for (const TaskExample& part : text) tokenizer.Encode(part.target, &ids);
  const auto tokens = static_cast<int64_t>(ids.size());
  const int64_t needed = split == TaskSplit::kTrain ? config.model().sequence_length() + 1 : 2;
  if (tokens < needed) {
    return DataError(absl::StrCat(Printable(path), " has ", tokens, " tokens, but at least ",
                                  needed, " are needed with model.sequence_length ",
                                  config.model().sequence_length(), ": give more text"));
  }
  return TokenRange{std::make_shared<TextTokens>(std::move(ids)), 0, tokens};
}

absl::StatusOr<RunData> OpenTextData(const Task& task, const RunConfig& config,
                                     const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(const TokenRange train, OpenText(task, config, TaskSplit::kTrain, tokenizer));
  ASSIGN_OR_RETURN(const TokenRange validation,
                   OpenText(task, config, TaskSplit::kValidation, tokenizer));
  const int64_t length = config.model().sequence_length();
  auto rows = std::make_shared<TrainingRows>(std::vector<WeightedTokens>{{train, 1}}, length,
                                             config.train().batch_size(), config.runtime().seed());
  RunData data;
  data.row_length = length;
  data.epoch_rows = rows->WindowsPerEpoch(0);
  data.train = std::move(rows);
  data.validation =
      std::make_shared<ValidationWindows>(std::vector<TokenRange>{validation}, length);
  data.fingerprint =
      absl::StrCat("task ", std::string(task.name()), " train ", train.file->fingerprint(),
                   " validation ", validation.file->fingerprint());
  data.description =
      absl::StrCat("task ", std::string(task.title()), " with ", train.size(), " training tokens");
  return data;
}

absl::StatusOr<TaskExamples> ReadExamples(const Task& task, const RunConfig& config,
                                          TaskSplit split, TaskUse use,
                                          const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(const std::string path, TaskFile(task, config.data().folder(), split));
  TaskExamples read;
  ASSIGN_OR_RETURN(read.examples, task.ReadFile(path, config.data().templates(), use,
                                                /*labels_needed=*/split != TaskSplit::kTest));
  read.tokens = std::make_shared<ExampleTokens>(
      TokensOf(read.examples, tokenizer, LengthsOf(task, config.data())));
  return read;
}

}  // namespace

std::string FingerprintOf(const TaskExamples& read) {
  std::string references;
  for (const TaskExample& example : read.examples) {
    for (const std::string& reference : example.references)
      absl::StrAppend(&references, reference.size(), ":", reference);
    absl::StrAppend(&references, "\n", example.group, "\n");
  }
  std::string text = absl::StrCat(read.examples.size(), ":");
  for (const TokenLists* lists : {&read.tokens->sources, &read.tokens->targets})
    absl::StrAppend(&text, DigestText(lists->all_ids()), DigestText(lists->ends()));
  return absl::StrCat(text, DigestText(references.data(), references.size()));
}

std::string DescribeCuts(const ExampleTokens& tokens, const ExampleLengths& longest) {
  std::vector<std::string> cuts;
  if (tokens.cut_sources > 0)
    cuts.push_back(absl::StrCat(tokens.cut_sources, " sources to ", longest.source));
  if (tokens.cut_targets > 0)
    cuts.push_back(absl::StrCat(tokens.cut_targets, " targets to ", longest.target));
  return cuts.empty() ? "" : absl::StrCat(absl::StrJoin(cuts, " and "), " tokens");
}

absl::StatusOr<TaskExamples> OpenTaskExamples(const Task& task, const RunConfig& config,
                                              TaskSplit split, const Tokenizer& tokenizer) {
  return ReadExamples(task, config, split, TaskUse::kEvaluation, tokenizer);
}

absl::StatusOr<std::shared_ptr<const ValidationData>> OpenTaskText(const Task& task,
                                                                   const RunConfig& config,
                                                                   TaskSplit split) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   MakeTokenizer(config.data().tokenizer()));
  ASSIGN_OR_RETURN(TokenRange text, OpenText(task, config, split, *tokenizer));
  return std::make_shared<ValidationWindows>(std::vector<TokenRange>{std::move(text)},
                                             config.model().sequence_length());
}

absl::StatusOr<RunData> OpenTaskData(const Task& task, const RunConfig& config) {
  RunData data;
  ASSIGN_OR_RETURN(data.tokenizer, MakeTokenizer(config.data().tokenizer()));
  if (task.is_text()) {
    ASSIGN_OR_RETURN(data, OpenTextData(task, config, *data.tokenizer));
    data.task = &task;
    return data;
  }
  ASSIGN_OR_RETURN(const TaskExamples train, ReadExamples(task, config, TaskSplit::kTrain,
                                                          TaskUse::kTraining, *data.tokenizer));
  ASSIGN_OR_RETURN(data.examples,
                   OpenTaskExamples(task, config, TaskSplit::kValidation, *data.tokenizer));
  const ExampleLengths longest = LengthsOf(task, config.data());
  const ExampleLengths* const padded = config.data().pad_to_length() ? &longest : nullptr;
  const int64_t pad_id = config.model().pad_id();
  data.task = &task;
  data.train = std::make_shared<ExampleRows>(ExampleBatches(train.tokens, pad_id, padded),
                                             config.train().batch_size(), config.runtime().seed());
  data.validation =
      std::make_shared<ExampleWindows>(ExampleBatches(data.examples.tokens, pad_id, padded));
  data.row_length = longest.source;
  data.epoch_rows = train.tokens->sources.size();
  data.fingerprint =
      absl::StrCat("task ", std::string(task.name()), " train ", FingerprintOf(train),
                   " validation ", FingerprintOf(data.examples));
  data.description = absl::StrCat("task ", std::string(task.title()), " with ", data.epoch_rows,
                                  " training examples");
  const std::string cuts = DescribeCuts(*train.tokens, longest),
                    validation_cuts = DescribeCuts(*data.examples.tokens, longest);
  if (!cuts.empty()) absl::StrAppend(&data.description, ", of which were cut ", cuts);
  absl::StrAppend(&data.description, ", and ", data.examples.examples.size(), " to validate with");
  if (!validation_cuts.empty())
    absl::StrAppend(&data.description, ", of which were cut ", validation_cuts);
  return data;
}

absl::StatusOr<RunData> OpenRunData(const RunConfig& config) {
  if (!config.data().task().empty()) {
    ASSIGN_OR_RETURN(const Task* task, TaskNamed(config.data().task()));
    return OpenTaskData(*task, config);
  }
  ASSIGN_OR_RETURN(Splits splits, OpenSplits(config.data(), config.model()));
  RunData data;
  data.description = absl::StrCat(NumTokens(splits.train), " training tokens");
  data.train = std::make_shared<TrainingRows>(std::move(splits.train), splits.format,
                                              config.train().batch_size(), config.runtime().seed());
  data.validation =
      std::make_shared<ValidationWindows>(std::move(splits.validation), splits.format);
  data.fingerprint = std::move(splits.fingerprint);
  data.row_length = config.model().sequence_length();
  return data;
}

}  // namespace hypermoe
