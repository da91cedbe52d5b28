#include "runtime/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/task_file.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Answer(const std::string& task, std::string_view output,
                   DataConfig::Templates templates, const TaskExample& example = {}) {
  return FindTask(task)->AnswerOf(output, example, templates);
}

TEST(TaskTest, NamesAreFoundAndMistypedOnesExplained) {
  for (const Task* task : AllTasks()) {
    EXPECT_EQ(FindTask(task->name()), task);
    EXPECT_FALSE(task->title().empty());
    EXPECT_FALSE(task->metrics().empty());
  }
  EXPECT_EQ(AllTasks().size(), 20u);
  EXPECT_EQ(FindTask("SST-2"), nullptr);
  const auto none = TaskNamed("sts2");
  EXPECT_EQ(ExitCodeOf(none.status()), ExitCode::kUsage);
  EXPECT_THAT(std::string(none.status().message()),
              AllOf(HasSubstr("no task 'sts2'"), HasSubstr("the nearest is 'sst2'"),
                    HasSubstr("cola, sst2, stsb, mrpc, qqp, mnli, qnli, rte, boolq, cb, multirc, "
                              "copa, record, superglue_rte, wic, wsc, xsum, cnn_dailymail, squad, "
                              "wikitext")));
  EXPECT_EQ(*TaskNamed("cb"), FindTask("cb"));
}

TEST(TaskTest, FilesOfASplitInTheOrderOfTheirNames) {
  const TemporaryFolder folder;
  const Task& task = *FindTask("boolq");
  const auto none = TaskFile(task, folder.path(), TaskSplit::kTrain);
  EXPECT_EQ(ExitCodeOf(none.status()), ExitCode::kBadData);
  EXPECT_EQ(std::string(none.status().message()),
            folder.path() +
                ": no file of BoolQ for training; expected train.jsonl or "
                "train32.jsonl in this folder");
  folder.Write("train32.jsonl", "");
  EXPECT_EQ(*TaskFile(task, folder.path(), TaskSplit::kTrain), folder / "train32.jsonl");
  folder.Write("train.jsonl", "");
  EXPECT_EQ(*TaskFile(task, folder.path(), TaskSplit::kTrain), folder / "train.jsonl");
  EXPECT_THAT(std::string(TaskFile(task, folder / "no", TaskSplit::kTest).status().message()),
              HasSubstr("for testing; expected test.jsonl"));
}

TEST(TaskTest, TheRecipesOfThePaper) {
  EXPECT_EQ(FindTask("cola")->defaults().source_length, 256);
  EXPECT_EQ(FindTask("squad")->defaults().source_length, 384);
  EXPECT_EQ(FindTask("squad")->defaults().target_length, 30);
  EXPECT_EQ(FindTask("wikitext")->defaults().target_length, 1024);
  EXPECT_TRUE(FindTask("wikitext")->is_text());
  const TaskDefaults xsum = FindTask("xsum")->defaults();
  EXPECT_EQ(xsum.source_length, 1024);
  EXPECT_EQ(xsum.target_length, 128);
  EXPECT_EQ(xsum.beams, 6);
  EXPECT_EQ(xsum.no_repeat_ngram, 3);
  // A row of Table 1 each: what the paper reports comes first.
  EXPECT_THAT(FindTask("cola")->metrics(), ElementsAre("matthews"));
  EXPECT_EQ(FindTask("stsb")->metrics()[0], "pearson");
  EXPECT_EQ(FindTask("mrpc")->metrics()[0], "accuracy");
  EXPECT_EQ(FindTask("multirc")->metrics()[0], "f1");
  EXPECT_EQ(FindTask("record")->metrics()[0], "exact_match");
  EXPECT_EQ(FindTask("xsum")->metrics()[0], "rouge2");
}

// The labels of each task in the order of their numbers.
TEST(TaskTest, LabelsThereAndBack) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> labels = {
      {"cola", {"unacceptable", "acceptable"}},
      {"sst2", {"negative", "positive"}},
      {"mrpc", {"not_equivalent", "equivalent"}},
      {"qqp", {"not_duplicate", "duplicate"}},
      {"mnli", {"entailment", "neutral", "contradiction"}},
      {"qnli", {"entailment", "not_entailment"}},
      {"rte", {"entailment", "not_entailment"}},
      {"boolq", {"False", "True"}},
      {"cb", {"entailment", "contradiction", "neutral"}},
      {"multirc", {"False", "True"}},
      {"copa", {"choice1", "choice2"}},
      {"superglue_rte", {"entailment", "not_entailment"}},
      {"wic", {"False", "True"}}};
  for (const auto& [task, words] : labels) {
    SCOPED_TRACE(task);
    for (size_t i = 0; i < words.size(); ++i) {
      EXPECT_EQ(Answer(task, words[i], DataConfig::t5), std::to_string(i));
      EXPECT_EQ(Answer(task, std::to_string(i), DataConfig::off), std::to_string(i));
      EXPECT_EQ(Answer(task, words[i], DataConfig::off), "-1");
      EXPECT_EQ(Answer(task, std::to_string(i), DataConfig::t5), "-1");
      EXPECT_EQ(Answer(task, words[i] + "s", DataConfig::t5), "-1");
    }
    EXPECT_EQ(Answer(task, std::to_string(words.size()), DataConfig::off), "-1");
    EXPECT_EQ(Answer(task, "", DataConfig::t5), "-1");
    EXPECT_EQ(Answer(task, "", DataConfig::off), "-1");
  }
  EXPECT_EQ(Answer("wsc", "1", DataConfig::off), "1");
  EXPECT_EQ(Answer("wsc", "True", DataConfig::off), "-1");
  // Python's str.strip() in the paper's code alone.
  EXPECT_EQ(Answer("sst2", " 1\n", DataConfig::off), "1");
  EXPECT_EQ(Answer("sst2", " positive", DataConfig::t5), "-1");
}

TEST(TaskTest, LabelsInAllTheWaysThatFilesHaveThem) {
  for (const char* label : {"true", "1", R"("true")", R"("True")", R"("1")"}) {
    EXPECT_EQ(TaskExamples("boolq", R"({"question": "q", "passage": "p", "label": )" +
                                        std::string(label) + "}")[0]
                  .references[0],
              "1");
  }
  for (const char* label : {"entailment", "0"}) {
    EXPECT_EQ(
        TaskExamples("rte", "sentence1\tsentence2\tlabel\nA\tB\t" + std::string(label) + "\n")[0]
            .references[0],
        "0");
  }
}

TEST(TaskTest, ScoresAreNumbersOrNothing) {
  EXPECT_EQ(Answer("stsb", "3.8", DataConfig::t5), "3.8");
  EXPECT_EQ(Answer("stsb", " -1e1\n", DataConfig::off), "-1e1");
  for (const char* output : {"", "high", "3.8 4", "nan", "inf", "1e999"})
    EXPECT_EQ(Answer("stsb", output, DataConfig::t5), "") << output;
}

TEST(TaskTest, TextsStayAsTheyAre) {
  EXPECT_EQ(Answer("squad", " The answer . ", DataConfig::t5), " The answer . ");
  EXPECT_EQ(Answer("xsum", "", DataConfig::off), "");
}

// The rules of T5's evaluation of WSC.
TEST(TaskTest, AnOutputIsTheNounOfWsc) {
  const auto is_noun = [](std::string_view output, const std::string& noun) {
    TaskExample example;
    example.target = noun;
    return Answer("wsc", output, DataConfig::t5, example);
  };
  EXPECT_EQ(is_noun("Tom", "Tom"), "1");
  EXPECT_EQ(is_noun("tom", "Tom"), "1");
  EXPECT_EQ(is_noun("Bob", "Tom"), "0");
  EXPECT_EQ(is_noun("the rabbit", "a fuzzy rabbit"), "1");
  EXPECT_EQ(is_noun("a fuzzy rabbit", "The rabbit"), "1");
  EXPECT_EQ(is_noun("fuzzy thing", "fuzzy rabbit"), "0");
  EXPECT_EQ(is_noun("Bob", "Bob's hat"), "0");
  EXPECT_EQ(is_noun("Bob's hat", "his Bob's hat"), "1");
  EXPECT_EQ(is_noun("", "Tom"), "0");
  EXPECT_EQ(is_noun("the", "Tom"), "0");
}

// Every file of ../shared/data that a task reads, with the counts of its README.
TEST(TaskTest, RealFiles) {
  struct File {
    const char* task;
    const char* path;
    size_t evaluated;
    bool labels = true;
  };
  const File files[] = {
      {"cola", "glue/CoLA/train.tsv", 8551},
      {"cola", "glue/CoLA/dev.tsv", 1043},
      {"cola", "glue/CoLA/test.tsv", 1063, false},
      {"sst2", "glue/SST-2/train.tsv", 67349},
      {"sst2", "glue/SST-2/dev.tsv", 872},
      {"sst2", "glue/SST-2/test.tsv", 1821, false},
      {"rte", "glue/RTE/train.tsv", 2490},
      {"rte", "glue/RTE/dev.tsv", 277},
      {"rte", "glue/RTE/test.tsv", 3000, false},
      {"mrpc", "glue/MRPC/train.tsv", 3668},
      {"mrpc", "glue/MRPC/dev.tsv", 408},
      {"mrpc", "glue/MRPC/test.tsv", 1725, false},
      {"stsb", "glue/STS-B/train.tsv", 5749},
      {"stsb", "glue/STS-B/dev.tsv", 1500},
      {"stsb", "glue/STS-B/test.tsv", 1379, false},
      {"qnli", "glue/QNLI/dev.tsv", 5463},
      {"qnli", "glue/QNLI/test.tsv", 5463, false},
      {"boolq", "superglue/BoolQ/val.jsonl", 3270},
      {"boolq", "superglue/BoolQ/train32.jsonl", 32},
      {"boolq", "superglue/BoolQ/dev32.jsonl", 32},
      {"cb", "superglue/CB/val.jsonl", 56},
      {"cb", "superglue/CB/train32.jsonl", 32},
      {"cb", "superglue/CB/dev32.jsonl", 32},
      {"copa", "superglue/COPA/val.jsonl", 100},
      {"copa", "superglue/COPA/train32.jsonl", 32},
      {"copa", "superglue/COPA/dev32.jsonl", 32},
      {"multirc", "superglue/MultiRC/val.jsonl", 4848},
      {"multirc", "superglue/MultiRC/train32.jsonl", 154},
      {"multirc", "superglue/MultiRC/dev32.jsonl", 167},
      {"superglue_rte", "superglue/RTE/train.jsonl", 2490},
      {"superglue_rte", "superglue/RTE/val.jsonl", 277},
      {"superglue_rte", "superglue/RTE/test.jsonl", 3000, false},
      {"superglue_rte", "superglue/RTE/train32.jsonl", 32},
      {"superglue_rte", "superglue/RTE/dev32.jsonl", 32},
      {"wsc", "superglue/WSC/train.jsonl", 554},
      {"wsc", "superglue/WSC/val.jsonl", 104},
      {"wsc", "superglue/WSC/train32.jsonl", 32},
      {"wsc", "superglue/WSC/dev32.jsonl", 32},
      {"wic", "superglue/WiC/val.jsonl", 638},
      {"wic", "superglue/WiC/train32.jsonl", 32},
      {"wic", "superglue/WiC/dev32.jsonl", 32},
      {"record", "superglue/ReCoRD/train32.jsonl", 32},
      {"record", "superglue/ReCoRD/dev32.jsonl", 32},
      {"xsum", "xsum/test-1000.jsonl", 1000},
      {"squad", "squad/train-v1.1.json", 87599},
      {"squad", "squad/dev-v1.1.json", 10570},
      {"wikitext", "wikitext2/valid.txt", 1},
      {"wikitext", "wikitext2-raw/wiki.test.raw", 1},
  };
  const std::string data = HYPERMOE_SOURCE_DIR "/../shared/data/";
  int absent = 0;
  for (const File& file : files) {
    SCOPED_TRACE(file.path);
    if (!std::filesystem::exists(data + file.path)) {
      ++absent;
      continue;
    }
    for (const auto templates : {DataConfig::t5, DataConfig::off}) {
      const auto examples = FindTask(file.task)->ReadFile(data + file.path, templates,
                                                          TaskUse::kEvaluation, file.labels);
      ASSERT_TRUE(examples.ok()) << examples.status();
      EXPECT_EQ(examples->size(), file.evaluated);
      for (const TaskExample& example : *examples)
        EXPECT_EQ(example.references.empty(), !file.labels || FindTask(file.task)->is_text());
    }
  }
  if (absent > 0) GTEST_SKIP() << absent << " of " << std::size(files) << " files are absent";
}

}  // namespace
}  // namespace hypermoe
