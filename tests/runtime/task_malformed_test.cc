// Task files that cannot be read: where the error is, in which field, what is there and what was
// expected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/task_file.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

struct Malformed {
  const char* title;
  const char* task;
  std::string file;
  std::vector<std::string> words;  // all in the message
};

void ExpectRefused(const std::vector<Malformed>& cases) {
  const TemporaryFolder folder;
  for (const Malformed& bad : cases) {
    SCOPED_TRACE(bad.title);
    const std::string path = folder.Write("bad", bad.file);
    for (const auto templates : {DataConfig::t5, DataConfig::off}) {
      for (const auto use : {TaskUse::kTraining, TaskUse::kEvaluation}) {
        const auto examples = FindTask(bad.task)->ReadFile(path, templates, use);
        EXPECT_EQ(ExitCodeOf(examples.status()), ExitCode::kBadData) << examples.status();
        const std::string message(examples.status().message());
        EXPECT_THAT(message, HasSubstr(path));
        for (const std::string& word : bad.words) EXPECT_THAT(message, HasSubstr(word));
      }
    }
    EXPECT_EQ(folder.size(), 1);  // nothing is written
  }
}

TEST(MalformedTaskFileTest, TabSeparatedValues) {
  ExpectRefused({
      {"empty", "sst2", "", {"has no example"}},
      {"header alone", "sst2", "sentence\tlabel\n", {"has no example"}},
      {"a column too few",
       "sst2",
       "sentence\tlabel\nfine\t1\ndull\n",
       {":3: 1 columns; expected 2, sentence, label"}},
      {"a column too many", "sst2", "sentence\tlabel\na\tb\t1\n", {":2: 3 columns; expected 2"}},
      {"blank line", "sst2", "sentence\tlabel\nfine\t1\n\nfine\t1\n", {":3: 1 columns"}},
      {"no header",
       "sst2",
       "fine\t1\ndull\t0\n",
       {":2: field 'sentence': missing", "'fine'", "expected a text"}},
      {"no column of labels",
       "qnli",
       "index\tquestion\tsentence\n0\tQ\tS\n",
       {":2: field 'label': missing; the fields that are there: 'index', 'question', 'sentence'",
        "expected a label: 0 (entailment) or 1 (not_entailment)"}},
      {"a column twice", "rte", "label\tlabel\nx\ty\n", {":1: the header has the column 'label'"}},
      {"a label's number that is none",
       "sst2",
       "sentence\tlabel\nfine\t2\n",
       {":2: field 'label': '2'; expected a label: 0 (negative) or 1 (positive)"}},
      {"a label's word that is none",
       "mnli",
       "index\tsentence1\tsentence2\tgold_label\n0\tA\tB\t-\n",
       {":2: field 'gold_label': '-'; expected a label: 0 (entailment) or 1 (neutral) or 2 "
        "(contra"}},
      {"an empty label",
       "mrpc",
       "Quality\t#1 String\t#2 String\n\tA\tB\n",
       {":2: field 'Quality': ''"}},
      {"a label in the place of a mark",
       "cola",
       "made\tx\t\tShe sleeps.\n",
       {":1: field 'label': 'x'", "0 (unacceptable) or 1 (acceptable)"}},
      {"columns of another file", "cola", "0\tShe sleeps.\n", {":1: 2 columns; expected 4"}},
      {"a score that is no number",
       "stsb",
       "sentence1\tsentence2\tscore\nA\tB\thigh\n",
       {":2: field 'score': 'high'; expected a number from 0 to 5"}},
      {"a score too large",
       "stsb",
       "sentence1\tsentence2\tscore\nA\tB\t5.5\n",
       {":2: field 'score': '5.5'; expected a number from 0 to 5"}},
      {"a score that is not finite", "stsb", "sentence1\tsentence2\tscore\nA\tB\tnan\n", {"'nan'"}},
      {"no second question",
       "qqp",
       "id\tquestion1\tis_duplicate\n0\tA\t1\n",
       {":2: field 'question2': missing"}},
      {"ill-formed UTF-8",
       "sst2",
       "sentence\tlabel\nfine\t1\ncaf\xE9\t1\n",
       {":3:4: byte 0xE9", "expected UTF-8"}},
      {"a character cut short", "sst2", "sentence\tlabel\nfine\t1\xC3", {":2:7: byte 0xC3"}},
  });
}

TEST(MalformedTaskFileTest, JsonLines) {
  ExpectRefused({
      {"empty", "boolq", "", {"has no example"}},
      {"blank lines alone", "boolq", "\n \n", {"has no example"}},
      {"not JSON", "boolq", "{\"question\": \n", {":1: not valid JSON"}},
      {"an array", "boolq", "[1]\n", {":1: not valid JSON: it is array, not an object"}},
      {"a field twice",
       "boolq",
       R"({"passage": "a", "passage": "b"})",
       {":1: not valid JSON: key 'passage' stands twice"}},
      {"a missing field in a later line",
       "boolq",
       "{\"question\": \"q\", \"passage\": \"p\", \"label\": true}\n\n{\"question\": \"q\"}\n",
       {":3: field 'passage': missing; the fields that are there: 'question'", "expected a text"}},
      {"a number as text",
       "boolq",
       R"({"question": "q", "passage": 5, "label": true})",
       {":1: field 'passage': 5; expected a text"}},
      {"null", "boolq", R"({"question": null, "passage": "p"})", {":1: field 'question': null"}},
      {"a label that is null",
       "boolq",
       R"({"question": "q", "passage": "p", "label": null})",
       {":1: field 'label': null; expected a label: 0 (False) or 1 (True)"}},
      {"a boolean for another task's label",
       "cb",
       R"({"premise": "p", "hypothesis": "h", "label": true})",
       {":1: field 'label': true; expected a label: 0 (entailment) or 1 (contradiction) or 2"}},
      {"a label's number that is none",
       "copa",
       R"({"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 2})",
       {":1: field 'label': 2; expected a label: 0 (choice1) or 1 (choice2)"}},
      {"no label",
       "wic",
       R"({"word": "w", "sentence1": "a", "sentence2": "b"})",
       {":1: field 'label': missing"}},
      {"an id that is an object",
       "superglue_rte",
       R"({"premise": "p", "hypothesis": "h", "idx": {}, "label": 0})",
       {":1: field 'idx': an object; expected a text or a whole number"}},
      {"a summary without a document",
       "xsum",
       R"({"summary": "s"})",
       {":1: field 'document': missing; the fields that are there: 'summary'"}},
      {"an article without highlights",
       "cnn_dailymail",
       R"({"article": "a", "summary": "s"})",
       {":1: field 'highlights': missing"}},
      {"ill-formed UTF-8", "xsum", "{\"document\": \"\xFF\"}", {":1:15: byte 0xFF"}},
  });
}

TEST(MalformedTaskFileTest, NestedRows) {
  ExpectRefused({
      {"a passage that is a text",
       "multirc",
       R"({"idx": 0, "passage": "p"})",
       {":1: field 'passage': 'p'; expected an object"}},
      {"no questions",
       "multirc",
       R"({"passage": {"text": "t"}})",
       {":1: field 'passage.questions': missing; the fields that are there: 'text'"}},
      {"a question that is a text",
       "multirc",
       R"({"passage": {"text": "t", "questions": ["q"]}})",
       {":1: field 'passage.questions[0]': 'q'; expected an object"}},
      {"an answer without a label",
       "multirc",
       OneLine(R"({"passage": {"text": "t", "questions": [{"question": "q", "idx": 0, "answers": [
                   {"text": "a", "idx": 0, "label": 1}, {"text": "b", "idx": 1}]}]}})"),
       {":1: field 'passage.questions[0].answers[1].label': missing", "0 (False) or 1 (True)"}},
      {"a question's number below 0",
       "multirc",
       R"({"passage": {"text": "t", "questions": [{"question": "q", "idx": -1, "answers": []}]}})",
       {":1: field 'passage.questions[0].idx': -1; expected a whole number from 0"}},
      {"an entity beyond the passage",
       "record",
       R"({"passage": {"text": "d\u00e9j\u00e0", "entities": [{"start": 1, "end": 4}]}, "qas": []})",
       {":1: field 'passage.entities[0].end': 4; expected less than the passage's 4 characters"}},
      {"an entity that ends before it begins",
       "record",
       R"({"passage": {"text": "abcd", "entities": [{"start": 3, "end": 1}]}, "qas": []})",
       {":1: field 'passage.entities[0].start': 3; expected at most 'end', 1"}},
      {"a query without answers",
       "record",
       R"({"passage": {"text": "a", "entities": []}, "qas": [{"query": "q", "answers": []}]})",
       {":1: field 'qas[0].answers': an array; expected at least one answer"}},
      {"a span beyond the text",
       "wsc",
       OneLine(R"({"text": "Kim ran", "label": true, "target": {"span1_text": "Kim",
                   "span1_index": 0, "span2_text": "she", "span2_index": 9}})"),
       {":1: field 'target.span2_index': 9; expected less than the text's 2 words"}},
      {"a span without a text",
       "wsc",
       R"({"text": "Kim ran", "label": true, "target": {"span1_index": 0}})",
       {":1: field 'target.span1_text': missing"}},
      {"an empty span",
       "wsc",
       R"({"text": "Kim ran", "label": true, "target": {"span1_text": "", "span1_index": 0}})",
       {":1: field 'target.span1_text': ''; expected words of the text"}},
  });
}

std::string Squad(const std::string& questions) {
  return R"({"data": [{"paragraphs": [{"context": "c", "qas": [)" + questions + "]}]}]}";
}

TEST(MalformedTaskFileTest, Squad) {
  const std::string good = R"({"id": "a", "question": "q", "answers": [{"text": "c"}]})";
  ExpectRefused({
      {"empty", "squad", "", {"not valid JSON"}},
      {"cut short", "squad", Squad(good).substr(0, 60), {"not valid JSON"}},
      {"no data", "squad", R"({"version": "1.1"})", {"field 'data': missing"}},
      {"no question", "squad", R"({"data": []})", {"has no example"}},
      {"data that is an object",
       "squad",
       R"({"data": {}})",
       {"field 'data': an object; expected an"}},
      {"a paragraph without a context",
       "squad",
       R"({"data": [{"paragraphs": [{"qas": []}]}]})",
       {"field 'data[0].paragraphs[0].context': missing"}},
      {"an id twice",
       "squad",
       Squad(good + "," + good),
       {"field 'data[0].paragraphs[0].qas[1].id': 'a'; expected an id that no question before"}},
      {"no answers",
       "squad",
       Squad(R"({"id": "a", "question": "q"})"),
       {"field 'data[0].paragraphs[0].qas[0].answers': missing; the fields that are there: 'id'"}},
      {"no answer",
       "squad",
       Squad(R"({"id": "a", "question": "q", "answers": []})"),
       {"qas[0].answers': an array; expected at least one answer"}},
      {"an answer that is a text",
       "squad",
       Squad(R"({"id": "a", "question": "q", "answers": ["c"]})"),
       {"qas[0].answers[0]': 'c'; expected an object"}},
      {"an id that is a number",
       "squad",
       Squad(R"({"id": 1, "question": "q", "answers": []})"),
       {"qas[0].id': 1; expected a text"}},
  });
}

TEST(MalformedTaskFileTest, PlainText) {
  ExpectRefused({
      {"empty", "wikitext", "", {"has no example"}},
      {"blank", "wikitext", " \n \n", {"has no example"}},
      {"ill-formed UTF-8", "wikitext", " = H = \n a\xFF\n", {":2:3: byte 0xFF"}},
  });
}

// T5's alone needs the pronoun.
TEST(MalformedTaskFileTest, APronounThatTheTextDoesNotHave) {
  const auto examples = ReadTaskText(
      "wsc", OneLine(R"({"text": "Kim ran because she was late", "label": true, "target": {
                         "span1_text": "Kim", "span1_index": 0, "span2_text": "she",
                         "span2_index": 4}})"));
  EXPECT_THAT(
      std::string(examples.status().message()),
      HasSubstr(":1: field 'target.span2_text': 'she'; expected a word of the text after 4"));
}

TEST(MalformedTaskFileTest, TrainingNeedsATrueExampleOfWsc) {
  const auto examples =
      ReadTaskText("wsc", OneLine(R"({"text": "Kim ran as she was late", "label": false, "target": {
                         "span1_text": "Kim", "span1_index": 0, "span2_text": "she",
                         "span2_index": 3}})"),
                   DataConfig::t5, TaskUse::kTraining);
  EXPECT_THAT(std::string(examples.status().message()), HasSubstr("has no example"));
}

TEST(MalformedTaskFileTest, AMissingFileIsNoBadData) {
  const TemporaryFolder folder;
  const auto examples =
      FindTask("sst2")->ReadFile(folder / "none.tsv", DataConfig::t5, TaskUse::kTraining);
  EXPECT_EQ(ExitCodeOf(examples.status()), ExitCode::kIo);
  EXPECT_THAT(std::string(examples.status().message()), HasSubstr("none.tsv"));
}

}  // namespace
}  // namespace hypermoe
