// Every template of every task, by examples.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/support/task_file.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// One example of a file, in both families.
struct Pinned {
  const char* task;
  const char* file;
  const char* t5_source;
  const char* t5_target;
  const char* off_source;
  const char* off_target;
};

const Pinned kPinned[] = {
    {"cola", "made\t0\t*\tThey drank the pub.\n", "cola sentence: They drank the pub.",
     "unacceptable", "cola sentence: They drank the pub.", "0"},
    {"cola", "made\t1\t\tThe \"pub\" was dry.\n", "cola sentence: The \"pub\" was dry.",
     "acceptable", "cola sentence: The \"pub\" was dry.", "1"},
    {"sst2", "sentence\tlabel\na fine film . \t1\n", "sst2 sentence: a fine film . ", "positive",
     "sst2 sentence: a fine film . ", "1"},
    {"sst2", "sentence\tlabel\ndull\t0\n", "sst2 sentence: dull", "negative", "sst2 sentence: dull",
     "0"},
    {"stsb",
     "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
     "7\tg\tf\ty\t1\ts\tt\tA man sings.\tA man is singing.\t4.750\n",
     "stsb sentence1: A man sings. sentence2: A man is singing.", "4.8",
     "stsb sentence1: A man sings. sentence2: A man is singing.", "4.8"},
    {"mrpc",
     "\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
     "0\t12\t34\tIt rained \" all day .\tIt snowed .\n",
     "mrpc sentence1: It rained \" all day . sentence2: It snowed .", "not_equivalent",
     "mrpc sentence1: It rained \" all day . sentence2: It snowed .", "0"},
    {"mrpc", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t1\t2\tA\tB\r\n",
     "mrpc sentence1: A sentence2: B", "equivalent", "mrpc sentence1: A sentence2: B", "1"},
    {"qqp",
     "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tWhy?\rReally?\tHow come?\t1\n",
     "qqp question1: Why?\rReally? question2: How come?", "duplicate",
     "qqp question1: Why?\rReally? question2: How come?", "1"},
    {"qqp", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tWhy?\tWho?\t0\n",
     "qqp question1: Why? question2: Who?", "not_duplicate", "qqp question1: Why? question2: Who?",
     "0"},
    {"mnli",
     "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_"
     "label\n3\tmade\tP\tH\tneutral\tcontradiction\n",
     "mnli hypothesis: H premise: P", "contradiction", "mnli premise: P hypothesis: H", "2"},
    {"mnli", "index\tsentence1\tsentence2\tgold_label\n3\tP\tH\tneutral\n",
     "mnli hypothesis: H premise: P", "neutral", "mnli premise: P hypothesis: H", "1"},
    {"mnli", "index\tsentence1\tsentence2\tgold_label\n3\tP\tH\tentailment\n",
     "mnli hypothesis: H premise: P", "entailment", "mnli premise: P hypothesis: H", "0"},
    {"qnli", "index\tquestion\tsentence\tlabel\n0\tWho?\tNobody.\tnot_entailment\n",
     "qnli question: Who? sentence: Nobody.", "not_entailment",
     "qnli question: Who? sentence: Nobody.", "1"},
    {"qnli", "index\tquestion\tsentence\tlabel\n0\tWho?\tKim.\tentailment\n",
     "qnli question: Who? sentence: Kim.", "entailment", "qnli question: Who? sentence: Kim.", "0"},
    {"rte", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n",
     "rte sentence1: A sentence2: B", "entailment", "rte sentence1: A sentence2: B", "0"},
    {"rte", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tnot_entailment\n",
     "rte sentence1: A sentence2: B", "not_entailment", "rte sentence1: A sentence2: B", "1"},
    {"boolq",
     R"({"question": "is ice cold", "passage": "Ice -- Ice is.", "idx": 4, "label": true})",
     "boolq passage: Ice -- Ice is. question: is ice cold", "True",
     "superglue-boolq question: is ice cold passage: Ice -- Ice is.", "1"},
    {"boolq", R"({"question": "q", "passage": "p", "idx": 4, "label": false})",
     "boolq passage: p question: q", "False", "superglue-boolq question: q passage: p", "0"},
    {"cb", R"({"premise": "P", "hypothesis": "H", "label": "contradiction", "idx": 0})",
     "cb hypothesis: H premise: P", "contradiction", "superglue-cb premise: P hypothesis: H", "1"},
    {"cb", R"({"premise": "P", "hypothesis": "H", "label": "neutral", "idx": 0})",
     "cb hypothesis: H premise: P", "neutral", "superglue-cb premise: P hypothesis: H", "2"},
    {"cb", R"({"premise": "P", "hypothesis": "H", "label": "entailment", "idx": 0})",
     "cb hypothesis: H premise: P", "entailment", "superglue-cb premise: P hypothesis: H", "0"},
    {"multirc",
     R"({"idx": 3, "passage": {"text": "<b>Sent 1: </b>Kim ran.<br>Lee sat.", "questions": [
         {"question": "Who <b>ran</b>?", "idx": 8, "answers": [
         {"text": "Kim<br>", "idx": 21, "label": 1}]}]}})",
     "multirc question: Who ran? answer: Kim  paragraph: Sent 1: Kim ran. Lee sat.", "True",
     "superglue-multirc question: Who ran? answer: Kim  paragraph: Sent 1: Kim ran. Lee sat.", "1"},
    {"copa",
     R"({"premise": "P", "choice1": "A", "choice2": "B", "question": "cause", "label": 0, "idx": 1})",
     "copa choice1: A choice2: B premise: P question: cause", "choice1",
     "superglue-copa premise: P choice1: A choice2: B", "0"},
    {"copa",
     R"({"premise": "P", "choice1": "A", "choice2": "B", "question": "effect", "label": 1, "idx": 1})",
     "copa choice1: A choice2: B premise: P question: effect", "choice2",
     "superglue-copa premise: P choice1: A choice2: B", "1"},
    {"superglue_rte", R"({"premise": "P", "hypothesis": "H", "label": "not_entailment", "idx": 2})",
     "rte hypothesis: H premise: P", "not_entailment", "superglue-rte premise: P hypothesis: H",
     "1"},
    {"wic",
     R"({"word": "bank", "sentence1": "A bank.", "sentence2": "To bank.", "idx": 1, "label": false,
         "start1": 2, "start2": 3, "end1": 6, "end2": 7, "version": 1.1})",
     "wic sentence1: A bank. sentence2: To bank. word: bank", "False",
     "superglue-wic sentence1: A bank. sentence2: To bank. word: bank", "0"},
    {"wsc",
     R"({"text": "Mitchell asked Tom if he could lend some money.", "idx": 1, "label": true,
         "target": {"span1_text": "Tom", "span1_index": 2, "span2_text": "he", "span2_index": 4}})",
     "wsc: Mitchell asked Tom if *he* could lend some money.", "Tom",
     "superglue-wsc.fixed text: Mitchell asked * Tom * if # he # could lend some money.", "1"},
    {"record",
     R"({"idx": 1, "passage": {"text": "Kim met L\u00e9a.\n@highlight\nThey ate\n@highlight\nA duck",
         "entities": [{"start": 8, "end": 10}, {"start": 0, "end": 2}, {"start": 8, "end": 10}]},
         "qas": [{"query": "@placeholder ate", "idx": 5, "answers": [
         {"start": 8, "end": 10, "text": "L\u00e9a"}, {"start": 0, "end": 2, "text": "Kim"}]}]})",
     "record query: @placeholder ate entities: Kim, L\xC3\xA9"
     "a passage: Kim met L\xC3\xA9"
     "a. "
     "They ate. A duck",
     "Kim",
     "superglue-record record query: @placeholder ate entities: Kim, L\xC3\xA9"
     "a passage: "
     "Kim met L\xC3\xA9"
     "a. They ate. A duck",
     "Kim"},
    {"xsum", R"({"document": "One.\nTwo.", "summary": "Both.", "id": 12})", "summarize: One.\nTwo.",
     "Both.", "summarize:One.\nTwo.", "Both."},
    {"cnn_dailymail", R"({"article": "One.", "highlights": "Both.\nAll.", "id": "ab12"})",
     "summarize: One.", "Both.\nAll.", "summarize:One.", "Both.\nAll."},
    // As in the tests of T5's preprocessor: punctuation apart, also at the ends.
    {"squad",
     R"({"data": [{"title": "t", "paragraphs": [{"context": "Some context.", "qas": [
         {"id": "a", "question": "A question?", "answers": [
         {"text": "The answer.", "answer_start": 0},
         {"text": "Another answer.", "answer_start": 0}]}]}]}]})",
     "question: A question ? context: Some context . ", "The answer . ",
     "question: A question? context: Some context.", "The answer."},
    {"squad",
     R"j({"data": [{"paragraphs": [{"context": "  \u00c9mile_2,  \"(x)\"", "qas": [
         {"id": "a", "question": " U.S.", "answers": [{"text": "(x)"}]}]}]}]})j",
     "question: U . S . context: \xC3\x89 mile_2 , \" ( x ) \" ", " ( x ) ",
     "question: U.S. context: \xC3\x89mile_2,  \"(x)\"", "(x)"},
    {"wikitext", " \n = Head = \n \n A text . \n", "", " \n = Head = \n \n A text . \n", "",
     " = Head = \n A text . \n"},
};

TEST(TaskTemplateTest, BothFamiliesOfEveryTask) {
  std::set<std::string> seen;
  for (const Pinned& pinned : kPinned) {
    SCOPED_TRACE(pinned.task);
    SCOPED_TRACE(pinned.file);
    seen.insert(pinned.task);
    const std::string file = pinned.file[0] == '{' ? OneLine(pinned.file) : pinned.file;
    for (const auto templates : {DataConfig::t5, DataConfig::off}) {
      const bool t5 = templates == DataConfig::t5;
      const auto examples = TaskExamples(pinned.task, file, templates);
      ASSERT_EQ(examples.size(), 1u);
      EXPECT_EQ(examples[0].source, t5 ? pinned.t5_source : pinned.off_source);
      EXPECT_EQ(examples[0].target, t5 ? pinned.t5_target : pinned.off_target);
      const Task& task = *FindTask(pinned.task);
      if (task.is_text()) continue;
      // What the model is to write is a right answer, in both families the same label.
      ASSERT_FALSE(examples[0].references.empty());
      EXPECT_EQ(task.AnswerOf(examples[0].target, examples[0], templates),
                examples[0].references[0]);
    }
  }
  for (const Task* task : AllTasks()) EXPECT_EQ(seen.count(std::string(task->name())), 1u);
}

TEST(TaskTemplateTest, ExamplesHaveTheFilesIds) {
  EXPECT_EQ(TaskExamples("boolq", R"({"question": "", "passage": "", "idx": 4, "label": 1})")[0].id,
            "4");
  EXPECT_EQ(TaskExamples("cnn_dailymail", R"({"article": "", "highlights": "", "id": "ab"})")[0].id,
            "ab");
  EXPECT_EQ(TaskExamples("rte", "index\tsentence1\tsentence2\tlabel\n17\tA\tB\tentailment\n")[0].id,
            "17");
  EXPECT_EQ(TaskExamples("sst2", "sentence\tlabel\ndull\t0\n")[0].id, "");
}

TEST(TaskTemplateTest, GlueTestFilesHaveNoLabels) {
  const auto cola = TaskExamples("cola", "index\tsentence\n0\tShe sleeps.\n", DataConfig::t5,
                                 TaskUse::kEvaluation, false);
  ASSERT_EQ(cola.size(), 1u);
  EXPECT_EQ(cola[0].id, "0");
  EXPECT_EQ(cola[0].source, "cola sentence: She sleeps.");
  EXPECT_EQ(cola[0].target, "<unk>");
  EXPECT_THAT(cola[0].references, IsEmpty());
  const auto stsb = TaskExamples("stsb", "index\tsentence1\tsentence2\n0\tA\tB\n", DataConfig::off,
                                 TaskUse::kEvaluation, false);
  EXPECT_EQ(stsb[0].target, "<unk>");
  // Labels that are there are read.
  EXPECT_EQ(TaskExamples("sst2", "sentence\tlabel\nfine\t1\n", DataConfig::t5, TaskUse::kEvaluation,
                         false)[0]
                .target,
            "positive");
  // In training they must be there.
  EXPECT_FALSE(
      ReadTaskText("cola", "index\tsentence\n0\tX\n", DataConfig::t5, TaskUse::kTraining, false)
          .ok());
}

// Published values: T5's round(5y)/5 and NumPy's round to one decimal, halves to even, in float32.
TEST(TaskTemplateTest, SimilarityScoresAreRounded) {
  const auto target = [](const std::string& score, DataConfig::Templates templates) {
    return TaskExamples("stsb", "sentence1\tsentence2\tscore\nA\tB\t" + score + "\n", templates)[0]
        .target;
  };
  EXPECT_EQ(target("3.8", DataConfig::t5), "3.8");
  EXPECT_EQ(target("0", DataConfig::t5), "0.0");
  EXPECT_EQ(target("5.000", DataConfig::t5), "5.0");
  EXPECT_EQ(target("4.75", DataConfig::t5), "4.8");
  EXPECT_EQ(target("2.917", DataConfig::t5), "3.0");
  EXPECT_EQ(target("0.5", DataConfig::t5), "0.4");
  EXPECT_EQ(target("1.5", DataConfig::t5), "1.6");
  EXPECT_EQ(target("2.917", DataConfig::off), "2.9");
  EXPECT_EQ(target("4.25", DataConfig::off), "4.2");
  EXPECT_EQ(target("4.75", DataConfig::off), "4.8");
  EXPECT_EQ(target("0.35", DataConfig::off), "0.3");  // 0.35 is less than itself in float32
  EXPECT_EQ(target("5", DataConfig::off), "5.0");
}

TEST(TaskTemplateTest, RecordTrainsOnEveryAnswer) {
  const std::string row = OneLine(
      R"({"passage": {"text": "Kim met Lea.", "entities": [{"start": 0, "end": 2}]}, "qas": [
          {"query": "one", "idx": 5, "answers": [{"text": "Lea"}, {"text": "Kim"}, {"text": "Lea"}]},
          {"query": "two", "idx": 6, "answers": [{"text": "Kim"}]}]})");
  const auto training = TaskExamples("record", row, DataConfig::t5, TaskUse::kTraining);
  ASSERT_EQ(training.size(), 3u);
  EXPECT_EQ(training[0].target, "Kim");
  EXPECT_EQ(training[1].target, "Lea");
  EXPECT_EQ(training[0].source, training[1].source);
  EXPECT_EQ(training[2].target, "Kim");
  const auto evaluation = TaskExamples("record", row);
  ASSERT_EQ(evaluation.size(), 2u);
  EXPECT_EQ(evaluation[0].id, "5");
  EXPECT_THAT(evaluation[0].references, ElementsAre("Kim", "Lea"));
  EXPECT_THAT(evaluation[1].references, ElementsAre("Kim"));
}

TEST(TaskTemplateTest, RecordJoinsHighlightsByWhatIsBeforeThem) {
  const auto source = [](const std::string& passage) {
    const std::string source =
        TaskExamples(
            "record",
            R"({"passage": {"text": ")" + passage +
                R"(", "entities": []}, "qas": [{"query": "q", "answers": [{"text": "a"}]}]})")[0]
            .source;
    return source.substr(source.find("passage: ") + 9);
  };
  EXPECT_EQ(source(R"(a?\n@highlight\nb!\n@highlight\nc\"\n@highlight\nd'\n@highlight\ne)"),
            "a? b! c\" d' e");
  EXPECT_EQ(source(R"(a,\n@highlight\nb)"), "a,. b");
  EXPECT_EQ(source(R"(\n@highlight\nb @highlight c)"), ". b @highlight c");
}

TEST(TaskTemplateTest, MultiRcGroupsAnswersByQuestion) {
  const auto examples =
      TaskExamples("multirc", OneLine(R"({"idx": 3, "passage": {"text": "T", "questions": [
      {"question": "A?", "idx": 8, "answers": [{"text": "a", "idx": 0, "label": 0},
                                               {"text": "b", "idx": 1, "label": 1}]},
      {"question": "B?", "idx": 9, "answers": [{"text": "c", "idx": 2, "label": 0}]}]}})"));
  ASSERT_EQ(examples.size(), 3u);
  EXPECT_EQ(examples[0].group, examples[1].group);
  EXPECT_NE(examples[0].group, examples[2].group);
  EXPECT_EQ(examples[1].id, "3-8-1");
  EXPECT_EQ(examples[0].target, "False");
  EXPECT_EQ(examples[1].target, "True");
}

std::string WscRow(const std::string& text, const std::string& noun, int noun_at,
                   const std::string& pronoun, int pronoun_at, const std::string& label = "true") {
  return R"({"text": ")" + text + R"(", "target": {"span1_text": ")" + noun +
         R"(", "span1_index": )" + std::to_string(noun_at) + R"(, "span2_text": ")" + pronoun +
         R"(", "span2_index": )" + std::to_string(pronoun_at) + R"(}, "label": )" + label + "}\n";
}

TEST(TaskTemplateTest, WscTrainsOnTrueExamplesOnlyInT5) {
  const std::string rows = WscRow("Kim saw Lea as she left", "Kim", 0, "she", 4) +
                           WscRow("Kim saw Lea as she left", "Lea", 2, "she", 4, "false");
  EXPECT_EQ(TaskExamples("wsc", rows, DataConfig::t5, TaskUse::kTraining).size(), 1u);
  EXPECT_EQ(TaskExamples("wsc", rows, DataConfig::off, TaskUse::kTraining).size(), 2u);
  const auto examples = TaskExamples("wsc", rows);
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(examples[1].target, "Lea");
  EXPECT_THAT(examples[1].references, ElementsAre("0"));
}

TEST(TaskTemplateTest, WscSpansThatDoNotStandAsTheFileSays) {
  // The case of the first letter, a full stop, a line end.
  EXPECT_EQ(
      TaskExamples("wsc",
                   WscRow("In rain the old roof broke as it aged", "The old\\nroof.", 2, "it", 7),
                   DataConfig::off)[0]
          .source,
      "superglue-wsc.fixed text: In rain * the old roof * broke as # it # aged");
  EXPECT_EQ(
      TaskExamples("wsc", WscRow("The roof broke as it aged", "the roof", 0, "it", 4))[0].target,
      "The roof");
  // Punctuation behind the pronoun, and a word counted too few.
  const std::string row = WscRow("Kim sang. \\\"Good for her,\\\" he said", "Kim", 0, "her", 3);
  EXPECT_EQ(TaskExamples("wsc", row)[0].source, "wsc: Kim sang. \"Good for *her* ,\" he said");
  // Where the paper's code finds no span it marks none.
  EXPECT_EQ(TaskExamples("wsc", row, DataConfig::off)[0].source,
            "superglue-wsc.fixed text: * Kim * sang. \"Good for her,\" he said");
  EXPECT_EQ(TaskExamples("wsc", WscRow("She left", "left", 1, "She", 0))[0].source,
            "wsc: *She* left");
}

}  // namespace
}  // namespace hypermoe
