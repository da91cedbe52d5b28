#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/tasks/basic_task.h"

namespace hypermoe {
namespace {

std::string WithoutMarkup(const std::string& text) {
  return absl::StrReplaceAll(text, {{"<br>", " "}, {"<b>", ""}, {"</b>", ""}});
}

// Whether an answer to a question about a paragraph is right. A row is a paragraph with several
// questions, each with several answers; every answer is an example.
class MultiRcTask : public RowTask {
 public:
  MultiRcTask()
      : RowTask({"multirc", "MultiRC", SuperGlueFiles(), {"f1", "question_match"}}, ReadJsonLines) {
  }

  std::string AnswerOf(std::string_view output, const TaskExample&,
                       DataConfig::Templates templates) const override {
    return labels_.AnswerOf(output, templates);
  }

 protected:
  absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                           std::vector<TaskExample>* examples) const override {
    ASSIGN_OR_RETURN(const std::string id, row.Id("idx"));
    ASSIGN_OR_RETURN(const ExampleRow passage, row.Object("passage"));
    ASSIGN_OR_RETURN(const std::string paragraph, passage.Text("text"));
    ASSIGN_OR_RETURN(const auto questions, passage.Objects("questions"));
    for (const ExampleRow& question : questions) {
      ASSIGN_OR_RETURN(const int64_t number, question.Index("idx"));
      ASSIGN_OR_RETURN(const std::string question_text, question.Text("question"));
      ASSIGN_OR_RETURN(const auto answers, question.Objects("answers"));
      for (const ExampleRow& answer : answers) {
        TaskExample example;
        ASSIGN_OR_RETURN(const int64_t answer_number, answer.Index("idx"));
        ASSIGN_OR_RETURN(const std::string answer_text, answer.Text("text"));
        example.group = absl::StrCat(id, "-", number);
        example.id = absl::StrCat(example.group, "-", answer_number);
        example.source = absl::StrCat(
            options.templates == DataConfig::t5 ? "multirc" : "superglue-multirc",
            " question: ", WithoutMarkup(question_text), " answer: ", WithoutMarkup(answer_text),
            " paragraph: ", WithoutMarkup(paragraph));
        RETURN_IF_ERROR(SetLabel(answer, "label", labels_, options, &example));
        examples->push_back(std::move(example));
      }
    }
    return absl::OkStatus();
  }

 private:
  const LabelSet labels_{{"False", "True"}};
};

}  // namespace

const Task& MultiRc() {
  static const auto& task = *new MultiRcTask();
  return task;
}

}  // namespace hypermoe
