#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/strict_json.h"
#include "runtime/tasks/basic_task.h"

namespace hypermoe {
namespace {

// As RE2's \s; std::isspace has \v too.
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r' && c != '\v'); }

// As T5 writes text for SQuAD: spaces around every character but ASCII letters, digits and "_",
// accented letters too, then one space for each run of them.
std::string WithPunctuationApart(std::string_view text) {
  std::string apart;
  const auto add_space = [&apart] {
    if (apart.empty() || apart.back() != ' ') apart += ' ';
  };
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    const std::string_view character = text.substr(i, end - i);
    const bool word = absl::ascii_isalnum(text[i]) || text[i] == '_';
    if (!word) add_space();
    if (!IsSpace(text[i])) apart += character;
    if (!word) add_space();
    i = end;
  }
  return apart;
}

std::string WithoutLeadingSpace(const std::string& text) {
  return text.substr(std::min(text.find_first_not_of(" \t\n\v\f\r"), text.size()));
}

// Questions to be answered in a passage's words. What an answer is compared with is in the words of
// the family too: with T5's, its answers with punctuation apart.
class SquadTask : public BasicTask {
 public:
  SquadTask()
      : BasicTask({"squad",
                   "SQuAD",
                   {{"train-v1.1.json"}, {"dev-v1.1.json"}, {"test-v1.1.json"}},
                   {"exact_match", "token_f1"},
                   Defaults()}) {}

  absl::StatusOr<std::vector<TaskExample>> ReadFile(const std::string& path,
                                                    DataConfig::Templates templates, TaskUse use,
                                                    bool labels_needed) const override {
    const ReadOptions options{templates, use, labels_needed || use == TaskUse::kTraining};
    ASSIGN_OR_RETURN(const ExampleText file, ReadExampleText(path));
    ASSIGN_OR_RETURN(const nlohmann::json json, ParseStrictJson(path, file.text));
    ASSIGN_OR_RETURN(const auto articles, ExampleRow(path, &json).Objects("data"));
    std::vector<TaskExample> examples;
    std::set<std::string> ids;
    for (const ExampleRow& article : articles) {
      ASSIGN_OR_RETURN(const auto paragraphs, article.Objects("paragraphs"));
      for (const ExampleRow& paragraph : paragraphs) {
        ASSIGN_OR_RETURN(const std::string context, paragraph.Text("context"));
        ASSIGN_OR_RETURN(const auto questions, paragraph.Objects("qas"));
        for (const ExampleRow& question : questions) {
          ASSIGN_OR_RETURN(TaskExample example, Example(context, question, options));
          if (!ids.insert(example.id).second)
            return question.Bad("id", "an id that no question before it has");
          examples.push_back(std::move(example));
        }
      }
    }
    RETURN_IF_ERROR(CheckNotEmpty(examples, path));
    return examples;
  }

 private:
  static TaskDefaults Defaults() {
    TaskDefaults defaults;
    defaults.source_length = 384;
    defaults.target_length = 30;
    defaults.max_length = 30;
    return defaults;
  }

  static absl::StatusOr<TaskExample> Example(const std::string& context, const ExampleRow& question,
                                             const ReadOptions& options) {
    const bool t5 = options.templates == DataConfig::t5;
    TaskExample example;
    ASSIGN_OR_RETURN(example.id, question.Text("id"));
    ASSIGN_OR_RETURN(const std::string text, question.Text("question"));
    // The spaces that punctuation brings to the ends fall together with those between the parts.
    example.source =
        t5 ? absl::StrCat("question:", WithPunctuationApart(absl::StrCat(" ", text, " ")),
                          "context:", WithPunctuationApart(absl::StrCat(" ", context)))
           : absl::StrCat("question: ", WithoutLeadingSpace(text),
                          " context: ", WithoutLeadingSpace(context));
    example.target = kUnknownTarget;
    if (question.Find("answers") == nullptr && !options.labels_needed) return example;
    ASSIGN_OR_RETURN(const auto answers, question.Objects("answers"));
    for (const ExampleRow& answer : answers) {
      ASSIGN_OR_RETURN(const std::string words, answer.Text("text"));
      example.references.push_back(t5 ? WithPunctuationApart(words) : words);
    }
    if (!answers.empty()) example.target = example.references[0];
    if (answers.empty() && options.labels_needed)
      return question.Bad("answers", "at least one answer");
    return example;
  }
};

}  // namespace

const Task& Squad() {
  static const auto& task = *new SquadTask();
  return task;
}

}  // namespace hypermoe
