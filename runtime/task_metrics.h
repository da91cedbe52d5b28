// What the outputs of a model for a task are measured by: a table of metrics. Values are percent,
// but for perplexities, and always finite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace hypermoe {

// What a metric takes an example's answer for.
enum class AnswerKind {
  kLabel,  // the number of a label from 0; "-1" is none
  kScore,  // a number; what is none counts as -1
  kText,   // a text
  kLoss,   // nothing: the losses of a block of plain text count instead
};

// An example and what a model made of it.
struct MeasuredExample {
  std::string answer;                   // as Task::AnswerOf gives them, ...
  std::vector<std::string> references;  // ... at least one but for kLoss
  std::string group;                    // TaskExample::group
  // There is no output: wrong, even where an empty one would be right. `answer` is then "-1" for a
  // label, else "".
  bool missing = false;
  // Of a block of text: the mean of its tokens' cross entropies, and the balance loss as it stood
  // in the loss that was trained.
  double loss = 0, balance_loss = 0;
};

struct MetricOptions {
  bool stemmer = false;  // ROUGE compares words' stems (porter_stemmer.h)
};

// A metric of fixed examples, each of which has been read, split into words, and so on.
class Metric {
 public:
  virtual ~Metric() = default;
  // The value if example i were there times[i] times: 1 of each for all, other numbers for a subset
  // or a resample. Of no example 0.
  virtual double Value(absl::Span<const int32_t> times) const = 0;
};

struct MetricType {
  std::string_view name;  // in Task::metrics()
  std::string_view key;   // in reports, where it need be the only one of its task alone
  AnswerKind kind;
  bool lower_is_better;
  // The examples need not outlive the metric.
  std::unique_ptr<Metric> (*prepare)(absl::Span<const MeasuredExample> examples,
                                     const MetricOptions& options);
};

// Labels (kLabel):
//   accuracy            share of right answers
//   f1                  2 TP / (2 TP + FP + FN), label 1 being positive; an answer that is neither
//   0
//                       nor 1 counts as the opposite of what is right; 0 if there is no 1 anywhere
//   macro_f1            mean over all labels up to the largest one seen of each one's F1, 0 for one
//                       that is nowhere
//   matthews            Matthews' correlation for several classes, no label being one too; 0 where
//                       answers or references are all the same
//   question_match      share of the groups (questions) whose answers are all right; "exact_match"
//   group_accuracy      mean over the groups of each one's accuracy
// Scores (kScore):
//   pearson, spearman   correlations (spearman: of ranks, equal scores sharing the mean rank); 0
//                       where answers or references are all the same
//   auc_roc, auc_pr     of scores against references 0 and 1: area under the ROC curve, average
//                       precision; 0 where one of the two is missing
// Texts (kText), the best over the references:
//   text_accuracy       share of answers equal to a reference, byte for byte; "accuracy"
//   exact_match         the same after SQuAD's normalisation (squad_answers.h)
//   token_f1            mean F1 of the words after it, 0 where no word is common; "f1"
//   rouge1, rouge2, rougeL, rougeLsum    mean F measure (rouge.h)
// Blocks of plain text (kLoss):
//   perplexity          exp(mean loss over the blocks)
//   authors_perplexity  exp(mean of loss + balance loss), as the paper's code prints it
// A group's answers are those that are there at least once, and it counts as often as the one of
// them that is there most often; an example without a group is one by itself.
const std::vector<MetricType>& AllMetrics();
// nullptr if there is none of that name.
const MetricType* FindMetric(std::string_view name);

// exp(loss), or the largest double where that or the loss is not finite.
double Perplexity(double loss);

}  // namespace hypermoe
