#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "runtime/tasks/basic_task.h"
#include "runtime/tasks/source_template.h"

namespace hypermoe {
namespace {

const char kScore[] = "score";

// The score as the model is to write it. The file's is taken as float32 first, as in both
// originals, on which the rounding of some halves depends; halves go to even digits.
std::string ScoreText(double score, DataConfig::Templates templates) {
  const float y = static_cast<float>(score);
  const double rounded = templates == DataConfig::t5
                             ? static_cast<double>(std::nearbyint(y * 5.0f) / 5.0f)
                             : std::nearbyint(static_cast<double>(y) * 5 / 5 * 10) / 10;
  return absl::StrFormat("%.1f", rounded);
}

// How alike two sentences are, from 0 to 5. What an answer is compared with is the rounded score.
class Similarity : public RowTask {
 public:
  Similarity() : RowTask({"stsb", "STS-B", GlueFiles(), {"pearson", "spearman"}}, ReadTsv) {}

  std::string AnswerOf(std::string_view output, const TaskExample&,
                       DataConfig::Templates) const override {
    const std::string text(Stripped(output));
    double score = 0;
    return absl::SimpleAtod(text, &score) && std::isfinite(score) ? text : "";
  }

 protected:
  absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                           std::vector<TaskExample>* examples) const override {
    const SourceTemplate source{"stsb", {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}}};
    TaskExample example;
    ASSIGN_OR_RETURN(example.id, row.Id("index"));
    ASSIGN_OR_RETURN(example.source, source.Fill(row));
    example.target = kUnknownTarget;
    if (row.Find(kScore) != nullptr || options.labels_needed) {
      double score = -1;
      const auto text = row.Text(kScore);
      if (!text.ok() || !absl::SimpleAtod(*text, &score) || !(score >= 0 && score <= 5))
        return row.Bad(kScore, "a number from 0 to 5");
      example.target = ScoreText(score, options.templates);
      example.references = {example.target};
    }
    examples->push_back(std::move(example));
    return absl::OkStatus();
  }
};

}  // namespace

const Task& StsB() {
  static const auto& task = *new Similarity();
  return task;
}

}  // namespace hypermoe
