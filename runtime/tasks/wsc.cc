#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "runtime/tasks/basic_task.h"

namespace hypermoe {
namespace {

// What the file says about a noun or a pronoun: its text and the words before it.
struct Span {
  std::string text;
  int64_t index = 0;
};

// A span, its text corrected to how `text` has it ("wsc.fixed" of the published readers): the case
// of its first letter, no full stop at its end, no line end in it.
absl::StatusOr<Span> ReadSpan(const ExampleRow& target, const std::string& name,
                              const std::string& text) {
  Span span;
  ASSIGN_OR_RETURN(span.text, target.Text(name + "_text"));
  ASSIGN_OR_RETURN(span.index, target.Index(name + "_index"));
  const std::vector<std::string> words =
      absl::StrSplit(text, absl::ByAnyChar(" \t\n\v\f\r"), absl::SkipEmpty());
  if (span.text.empty()) return target.Bad(name + "_text", "words of the text");
  if (span.index >= static_cast<int64_t>(words.size())) {
    return target.Bad(name + "_index",
                      absl::StrCat("less than the text's ", words.size(), " words"));
  }
  if (absl::StrContains(text, span.text)) return span;
  const bool lower = absl::ascii_islower(words[span.index][0]);
  span.text[0] = lower ? absl::ascii_tolower(span.text[0]) : absl::ascii_toupper(span.text[0]);
  while (span.text.size() > 1 && absl::EndsWith(span.text, ".")) span.text.pop_back();
  for (char& letter : span.text)
    if (letter == '\n') letter = ' ';
  return span;
}

// The text with `mark` and a space on both sides of a span that stands after as many words as it
// says, with one space after each of them. One that does not stays unmarked, as in the paper's
// code: the pronouns of 2 of SuperGLUE's 104 validation examples.
std::string Marked(const std::string& text, const Span& span, const std::string& mark) {
  size_t at = 0;
  for (int64_t word = 0; word < span.index; ++word) {
    const size_t end = text.find_first_of(" \t\n\v\f\r", at);
    if (end == std::string::npos || end == at) return text;
    at = end + 1;
  }
  if (text.compare(at, span.text.size(), span.text) != 0) return text;
  return absl::StrCat(text.substr(0, at), mark, " ", span.text, " ", mark,
                      text.substr(at + span.text.size()));
}

// Whether `word` is the pronoun, maybe with punctuation behind it.
bool IsPronoun(const std::string& word, const std::string& pronoun) {
  if (!absl::StartsWith(word, pronoun)) return false;
  return word.size() == pronoun.size() || absl::ascii_ispunct(word[pronoun.size()]);
}

// The text with the pronoun as "*it*", punctuation behind it set off. Where the file counts words
// wrongly, the pronoun is the next one.
absl::StatusOr<std::string> WithPronounMarked(const ExampleRow& target, const std::string& text,
                                              const Span& pronoun) {
  std::vector<std::string> words = absl::StrSplit(text, ' ');
  for (size_t i = pronoun.index; i < words.size(); ++i) {
    if (!IsPronoun(words[i], pronoun.text)) continue;
    const std::string behind = words[i].substr(pronoun.text.size());
    words[i] = absl::StrCat("*", pronoun.text, "*", behind.empty() ? "" : " ", behind);
    return absl::StrJoin(words, " ");
  }
  return target.Bad("span2_text",
                    absl::StrCat("a word of the text after ", pronoun.index, " words"));
}

// The words that say what a noun is, for T5's comparison of two: no case, no determiners.
std::set<std::string> NounWords(std::string_view text) {
  static const auto& determiners = *new std::set<std::string>{
      "a",    "an",   "few", "her",   "his",   "each", "every", "many",  "much",  "my",  "our",
      "some", "that", "the", "their", "these", "this", "those", "which", "whose", "your"};
  const std::string lower = absl::AsciiStrToLower(std::string(Stripped(text)));
  std::set<std::string> words;
  for (const absl::string_view word : absl::StrSplit(lower, ' '))
    if (determiners.count(std::string(word)) == 0) words.emplace(word);
  if (words.empty()) words.insert("");
  return words;
}

// Whether an output is the noun, in more or in fewer words. An apostrophe in only one of them tells
// "Bob" and "Bob's hat" apart.
bool IsNoun(std::string_view output, std::string_view noun) {
  constexpr auto npos = std::string_view::npos;
  if ((output.find('\'') == npos) != (noun.find('\'') == npos)) return false;
  const std::set<std::string> a = NounWords(output), b = NounWords(noun);
  return std::includes(a.begin(), a.end(), b.begin(), b.end()) ||
         std::includes(b.begin(), b.end(), a.begin(), a.end());
}

// Whether a pronoun stands for a noun. T5's model writes the noun that a pronoun stands for, so
// that it trains on the true examples only; a noun that is not the example's counts as "no".
class WscTask : public RowTask {
 public:
  WscTask() : RowTask({"wsc", "WSC", SuperGlueFiles(), {"accuracy"}, Defaults()}, ReadJsonLines) {}

  std::string AnswerOf(std::string_view output, const TaskExample& example,
                       DataConfig::Templates templates) const override {
    if (templates == DataConfig::t5) return IsNoun(output, example.target) ? "1" : "0";
    return labels_.AnswerOf(output, templates);
  }

 protected:
  absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                           std::vector<TaskExample>* examples) const override {
    TaskExample example;
    ASSIGN_OR_RETURN(example.id, row.Id("idx"));
    ASSIGN_OR_RETURN(const std::string text, row.Text("text"));
    ASSIGN_OR_RETURN(const ExampleRow target, row.Object("target"));
    ASSIGN_OR_RETURN(const Span noun, ReadSpan(target, "span1", text));
    ASSIGN_OR_RETURN(Span pronoun, ReadSpan(target, "span2", text));
    RETURN_IF_ERROR(SetLabel(row, "label", labels_, options, &example));
    if (options.templates == DataConfig::t5) {
      ASSIGN_OR_RETURN(const std::string marked, WithPronounMarked(target, text, pronoun));
      example.source = absl::StrCat("wsc: ", marked);
      example.target = noun.text;
      if (options.use == TaskUse::kTraining && example.references[0] != "1")
        return absl::OkStatus();
    } else {
      if (noun.index < pronoun.index) pronoun.index += 2;  // the marks
      example.source =
          absl::StrCat("superglue-wsc.fixed text: ", Marked(Marked(text, noun, "*"), pronoun, "#"));
    }
    examples->push_back(std::move(example));
    return absl::OkStatus();
  }

 private:
  static TaskDefaults Defaults() {
    TaskDefaults defaults;
    defaults.target_length = 32;  // nouns
    defaults.max_length = 32;
    return defaults;
  }

  const LabelSet labels_{{"False", "True"}};
};

}  // namespace

const Task& Wsc() {
  static const auto& task = *new WscTask();
  return task;
}

}  // namespace hypermoe
