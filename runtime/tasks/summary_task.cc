#include "runtime/tasks/summary_task.h"

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

SplitFiles Files() {
  return {{"train.jsonl", "train.json"},
          {"validation.jsonl", "validation.json", "val.jsonl", "val.json", "dev.jsonl"},
          {"test.jsonl", "test.json", "test-1000.jsonl"}};
}

// The lengths of the paper and the decoding of its code, whose limits of 10 and 60 count the start
// token too.
TaskDefaults Defaults() {
  TaskDefaults defaults;
  defaults.source_length = 1024;
  defaults.target_length = 128;
  defaults.beams = 6;
  defaults.no_repeat_ngram = 3;
  defaults.min_length = 9;
  defaults.max_length = 59;
  return defaults;
}

}  // namespace

SummaryTask::SummaryTask(std::string_view name, std::string_view title)
    : RowTask({name, title, Files(), {"rouge2", "rouge1", "rougeL", "rougeLsum"}, Defaults()},
              ReadJsonLines) {}

absl::Status SummaryTask::AddExamples(const ExampleRow& row, const ReadOptions& options,
                                      std::vector<TaskExample>* examples) const {
  const bool article = row.Find("document") == nullptr && row.Find("article") != nullptr;
  const char* const summary_field = article ? "highlights" : "summary";
  TaskExample example;
  ASSIGN_OR_RETURN(example.id, row.Id("id"));
  ASSIGN_OR_RETURN(const std::string document, row.Text(article ? "article" : "document"));
  // The paper's code has no space behind the colon.
  example.source =
      absl::StrCat(options.templates == DataConfig::t5 ? "summarize: " : "summarize:", document);
  example.target = kUnknownTarget;
  if (row.Find(summary_field) != nullptr || options.labels_needed) {
    ASSIGN_OR_RETURN(example.target, row.Text(summary_field));
    example.references = {example.target};
  }
  examples->push_back(std::move(example));
  return absl::OkStatus();
}

}  // namespace hypermoe
