#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/tasks/basic_task.h"

namespace hypermoe {
namespace {

// The summary's sentences, each behind a line "@highlight", become sentences of the passage: after
// a full stop, question or exclamation mark, or a quote, with a space, else with ". ".
std::string WithoutHighlights(std::string_view text) {
  constexpr std::string_view kMark = "\n@highlight\n", kEnds = ".?!\"'";
  std::string joined;
  while (true) {
    const size_t at = text.find(kMark);
    joined += text.substr(0, at);
    if (at == std::string_view::npos) return joined;
    const bool ended = at > 0 && kEnds.find(text[at - 1]) != std::string_view::npos;
    joined += ended ? " " : ". ";
    text.remove_prefix(at + kMark.size());
  }
}

// The offset of every character of a text, and its size.
std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) offsets.push_back(i);
  offsets.push_back(text.size());
  return offsets;
}

// The different texts of the passage's entities, which the file has as first and last characters,
// in the order of their bytes.
absl::StatusOr<std::set<std::string>> Entities(const ExampleRow& passage, const std::string& text) {
  const std::vector<size_t> offsets = CharacterOffsets(text);
  const auto characters = static_cast<int64_t>(offsets.size()) - 1;
  std::set<std::string> entities;
  ASSIGN_OR_RETURN(const auto spans, passage.Objects("entities"));
  for (const ExampleRow& span : spans) {
    ASSIGN_OR_RETURN(const int64_t start, span.Index("start"));
    ASSIGN_OR_RETURN(const int64_t end, span.Index("end"));
    if (end >= characters)
      return span.Bad("end", absl::StrCat("less than the passage's ", characters, " characters"));
    if (start > end) return span.Bad("start", absl::StrCat("at most 'end', ", end));
    entities.insert(text.substr(offsets[start], offsets[end + 1] - offsets[start]));
  }
  return entities;
}

// Which entity "@placeholder" stands for in a query about a passage. A row is a passage with
// several queries; in training a query is an example for each of its answers.
class RecordTask : public RowTask {
 public:
  RecordTask()
      : RowTask({"record", "ReCoRD", SuperGlueFiles(), {"exact_match", "token_f1"}, Defaults()},
                ReadJsonLines) {}

 protected:
  absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                           std::vector<TaskExample>* examples) const override {
    ASSIGN_OR_RETURN(const ExampleRow passage, row.Object("passage"));
    ASSIGN_OR_RETURN(const std::string text, passage.Text("text"));
    ASSIGN_OR_RETURN(const std::set<std::string> entities, Entities(passage, text));
    ASSIGN_OR_RETURN(const auto queries, row.Objects("qas"));
    for (const ExampleRow& query : queries) {
      TaskExample example;
      ASSIGN_OR_RETURN(example.id, query.Id("idx"));
      ASSIGN_OR_RETURN(const std::string query_text, query.Text("query"));
      // The paper's code has the task's name before all of T5's source.
      example.source =
          absl::StrCat(options.templates == DataConfig::t5 ? "" : "superglue-record ",
                       "record query: ", query_text, " entities: ", absl::StrJoin(entities, ", "),
                       " passage: ", WithoutHighlights(text));
      RETURN_IF_ERROR(AddWithAnswers(query, options, std::move(example), examples));
    }
    return absl::OkStatus();
  }

 private:
  static TaskDefaults Defaults() {
    TaskDefaults defaults;
    defaults.target_length = 64;  // names
    defaults.max_length = 64;
    return defaults;
  }

  absl::Status AddWithAnswers(const ExampleRow& query, const ReadOptions& options,
                              TaskExample example, std::vector<TaskExample>* examples) const {
    std::set<std::string> answers;
    if (query.Find("answers") != nullptr || options.labels_needed) {
      ASSIGN_OR_RETURN(const auto rows, query.Objects("answers"));
      for (const ExampleRow& answer : rows) {
        ASSIGN_OR_RETURN(std::string text, answer.Text("text"));
        answers.insert(std::move(text));
      }
      if (answers.empty() && options.labels_needed)
        return query.Bad("answers", "at least one answer");
    }
    example.references.assign(answers.begin(), answers.end());
    example.target = answers.empty() ? std::string(kUnknownTarget) : *answers.begin();
    examples->push_back(example);
    if (options.use == TaskUse::kEvaluation) return absl::OkStatus();
    for (size_t i = 1; i < example.references.size(); ++i) {
      example.target = example.references[i];
      examples->push_back(example);
    }
    return absl::OkStatus();
  }
};

}  // namespace

const Task& Record() {
  static const auto& task = *new RecordTask();
  return task;
}

}  // namespace hypermoe
