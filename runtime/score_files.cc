#include "runtime/score_files.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/strict_json.h"
#include "runtime/tasks/example_file.h"
#include "runtime/tasks/example_row.h"
#include "runtime/text_reader.h"

namespace hypermoe {
namespace {

using nlohmann::json;

constexpr char kBlank[] = " \t\r\n";

// Takes the first line off `text` that is not blank; "" at its end.
std::string_view TakeLine(std::string_view* text) {
  text->remove_prefix(std::min(text->find_first_not_of(kBlank), text->size()));
  const std::string_view line = text->substr(0, text->find('\n'));
  text->remove_prefix(line.size());
  return line;
}

// Whether a line is an object with one of two fields; what is no JSON has none.
bool HasEither(std::string_view line, const char* field, const char* other) {
  const json object = json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  return object.is_object() && (object.contains(field) || object.contains(other));
}

absl::StatusOr<bool> IsReferenceLines(const std::string& path) {
  ASSIGN_OR_RETURN(const ExampleText file, ReadExampleText(path));
  std::string_view rest = file.text;
  const std::string_view line = TakeLine(&rest);
  return line.find("\"reference") != std::string_view::npos &&
         HasEither(line, "reference", "references");
}

absl::StatusOr<std::vector<std::string>> ReferenceTexts(const ExampleRow& row) {
  const json* several = row.Find("references");
  if (several == nullptr) {
    ASSIGN_OR_RETURN(std::string text, row.Text("reference"));
    return std::vector<std::string>{std::move(text)};
  }
  std::vector<std::string> texts;
  for (const json& text : *several) {
    if (several->is_array() && text.is_string()) texts.push_back(text.get<std::string>());
  }
  if (texts.empty() || texts.size() != several->size())
    return row.Bad("references", "an array of texts, at least one");
  return texts;
}

absl::StatusOr<TaskExample> ReferenceLine(const Task& task, const ExampleRow& row,
                                          DataConfig::Templates templates) {
  TaskExample example;
  ASSIGN_OR_RETURN(example.id, row.Id("id"));
  ASSIGN_OR_RETURN(example.group, row.Id("group"));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReferenceTexts(row));
  example.target = texts[0];
  const AnswerKind kind = AnswerKindOf(task);
  const char* const field = row.Find("references") == nullptr ? "reference" : "references";
  for (const std::string& text : texts) {
    example.references.push_back(task.AnswerOf(text, example, templates));
    if (kind != AnswerKind::kText && example.references.back() == NoAnswer(task)) {
      return row.Bad(field, kind == AnswerKind::kScore
                                ? "a number as text"
                                : absl::StrCat("what a model of ", std::string(task.name()),
                                               " writes for a label, with --templates ",
                                               DataConfig::Templates_Name(templates)));
    }
  }
  return example;
}

struct Output {
  std::string id, text;
};

absl::StatusOr<std::vector<Output>> ReadOutputLines(const std::string& path) {
  std::vector<Output> outputs;
  std::set<std::string> ids;
  RETURN_IF_ERROR(ReadJsonLines(path, [&](const ExampleRow& row) -> absl::Status {
    Output output;
    const bool generated = row.Find("prediction") == nullptr && row.Find("output") != nullptr;
    ASSIGN_OR_RETURN(output.text, row.Text(generated ? "output" : "prediction"));
    ASSIGN_OR_RETURN(output.id, row.Id("id"));
    if (output.id.empty() ? !ids.empty() : ids.size() != outputs.size())
      return row.Bad("id", "an id on every line, or on none");
    if (!output.id.empty() && !ids.insert(output.id).second)
      return row.Bad("id", "an id that no line before it has");
    outputs.push_back(std::move(output));
    return absl::OkStatus();
  }));
  return outputs;
}

absl::StatusOr<std::vector<Output>> ReadOutputsById(const std::string& path,
                                                    std::string_view text) {
  ASSIGN_OR_RETURN(const json object, ParseStrictJson(path, text));
  std::vector<Output> outputs;
  for (const auto& [id, value] : object.items()) {
    if (!value.is_string())
      return ExampleRow(path, &object).Bad(id, "the text that a model wrote for this id");
    outputs.push_back({id, value.get<std::string>()});
  }
  return outputs;
}

// One object over the whole file, unless its name or its lines say otherwise.
bool IsOneObject(const std::string& path, std::string_view text) {
  if (IsJsonLines(path)) return false;
  const std::string_view first = TakeLine(&text), second = TakeLine(&text);
  if (first.empty() || first[0] != '{') return false;
  return second.empty() ? !HasEither(first, "prediction", "output") : second[0] != '{';
}

absl::Status WrongCount(const std::string& path, size_t outputs, const std::string& references_path,
                        size_t examples) {
  return DataError(absl::StrCat(Printable(path), " has ", outputs, " predictions, but ",
                                Printable(references_path), " has ", examples,
                                " examples: give one for each, in the same order, or an `id` with "
                                "each"));
}

// Where the example of each id stands.
absl::StatusOr<std::map<std::string, size_t>> PlacesOfIds(absl::Span<const TaskExample> examples,
                                                          const std::string& references_path) {
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < examples.size(); ++i) {
    if (!places.emplace(examples[i].id, i).second) {
      return DataError(absl::StrCat(Printable(references_path), ": two examples have the id '",
                                    Printable(examples[i].id),
                                    "': give predictions without ids, in the examples' order"));
    }
  }
  return places;
}

// The output of each example, null where it has none.
struct Matched {
  std::vector<const Output*> outputs;
  int64_t unknown = 0;
};

absl::StatusOr<Matched> MatchById(const std::vector<Output>& outputs,
                                  absl::Span<const TaskExample> examples, const std::string& path,
                                  const std::string& references_path) {
  ASSIGN_OR_RETURN(const auto places, PlacesOfIds(examples, references_path));
  Matched matched;
  matched.outputs.resize(examples.size(), nullptr);
  for (const Output& output : outputs) {
    const auto place = places.find(output.id);
    if (place == places.end()) {
      ++matched.unknown;
    } else {
      matched.outputs[place->second] = &output;
    }
  }
  if (matched.unknown == static_cast<int64_t>(outputs.size())) {
    return DataError(absl::StrCat(
        Printable(path), ": no id of its ", outputs.size(), " predictions is one of ",
        Printable(references_path), " (such as '", Printable(examples[0].id),
        "'): give the file that the predictions are for, or predictions in its order without ids"));
  }
  return matched;
}

absl::StatusOr<Matched> MatchByOrder(const std::vector<Output>& outputs,
                                     absl::Span<const TaskExample> examples,
                                     const std::string& path, const std::string& references_path) {
  if (outputs.size() != examples.size())
    return WrongCount(path, outputs.size(), references_path, examples.size());
  Matched matched;
  for (const Output& output : outputs) matched.outputs.push_back(&output);
  return matched;
}

}  // namespace

absl::StatusOr<std::vector<TaskExample>> ReadReferences(const Task& task, const std::string& path,
                                                        DataConfig::Templates templates) {
  ASSIGN_OR_RETURN(const bool lines, IsReferenceLines(path));
  if (!lines) return task.ReadFile(path, templates, TaskUse::kEvaluation);
  std::vector<TaskExample> examples;
  RETURN_IF_ERROR(ReadJsonLines(path, [&](const ExampleRow& row) -> absl::Status {
    ASSIGN_OR_RETURN(TaskExample example, ReferenceLine(task, row, templates));
    examples.push_back(std::move(example));
    return absl::OkStatus();
  }));
  return examples;
}

absl::StatusOr<Predictions> ReadPredictions(const Task& task, const std::string& path,
                                            const std::string& references_path,
                                            absl::Span<const TaskExample> examples,
                                            DataConfig::Templates templates) {
  ASSIGN_OR_RETURN(const ExampleText file, ReadExampleText(path));
  const bool one_object = IsOneObject(path, file.text);
  ASSIGN_OR_RETURN(const std::vector<Output> outputs,
                   one_object ? ReadOutputsById(path, file.text) : ReadOutputLines(path));
  if (outputs.empty()) {
    return DataError(absl::StrCat(Printable(path),
                                  " has no prediction: give JSON lines with a field `prediction` "
                                  "or `output`, or one JSON object with a text for each id"));
  }
  if (one_object && examples[0].id.empty()) {
    return DataError(
        absl::StrCat(Printable(path), " is one JSON object, with a text for each id, but ",
                     Printable(references_path), " has no ids: give JSON lines in its order"));
  }
  const bool by_id = one_object || (!outputs[0].id.empty() && !examples[0].id.empty());
  ASSIGN_OR_RETURN(const Matched matched,
                   by_id ? MatchById(outputs, examples, path, references_path)
                         : MatchByOrder(outputs, examples, path, references_path));
  std::vector<std::string> texts;
  for (const Output* output : matched.outputs)
    texts.push_back(output == nullptr ? "" : output->text);
  Predictions predictions;
  predictions.examples = Measure(task, examples, texts, templates);
  predictions.unknown = matched.unknown;
  for (size_t i = 0; i < examples.size(); ++i) {
    if (matched.outputs[i] != nullptr) continue;
    predictions.examples[i].missing = true;
    predictions.examples[i].answer = NoAnswer(task);
    ++predictions.missing;
  }
  return predictions;
}

absl::StatusOr<Predictions> ReadBlockLosses(const std::string& path) {
  Predictions predictions;
  RETURN_IF_ERROR(ReadJsonLines(path, [&](const ExampleRow& row) -> absl::Status {
    const json* loss = row.Find("loss");
    const json* balance = row.Find("balance_loss");
    if (loss == nullptr || !loss->is_number())
      return row.Bad("loss", "the mean cross entropy of a block of tokens");
    if (balance != nullptr && !balance->is_number()) return row.Bad("balance_loss", "a number");
    MeasuredExample block;
    block.loss = loss->get<double>();
    if (balance != nullptr) block.balance_loss = balance->get<double>();
    predictions.examples.push_back(std::move(block));
    return absl::OkStatus();
  }));
  if (predictions.examples.empty()) {
    return DataError(absl::StrCat(Printable(path),
                                  " has no block: give JSON lines with a field `loss`, one for "
                                  "each block of tokens"));
  }
  return predictions;
}

}  // namespace hypermoe
