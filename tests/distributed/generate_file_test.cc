// An encoder-decoder model answers a file of texts alike at every layout and batch size.
#include "runtime/generate_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/support/layouts.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/shared_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kEnd = 256;
const std::vector<std::string> kTexts = {"ab",  "",   "a longer text than the others",
                                         "abc", "zz", "gr\u00fcn"};

// tests/data/switch_moe with random values, for the tokenizer of bytes.
json Config() {
  std::ifstream file(HYPERMOE_TEST_DATA "/switch_moe/config.json");
  json config = json::parse(file);
  config["vocab_size"] = 260;
  config["eos_token_id"] = kEnd;
  config["decoder_start_token_id"] = 259;
  return config;
}

class GenerateFileTest : public testing::Test {
 protected:
  GenerateFileTest() {
    options_.checkpoint = folder_ / "model";
    options_.dtype = "float64";
    options_.input = folder_ / "texts.jsonl";
    options_.output = folder_ / "outputs.jsonl";
    options_.search.max_length = 10;
    options_.search.no_repeat_ngram = 2;
    options_.search.beams = 3;
    if (World()->rank() == 0) {
      WriteMadeFolder(options_.checkpoint, Config(), RandomTensors(Config(), at::kFloat));
      std::ofstream file(options_.input);
      for (const std::string& text : kTexts) file << "{\"text\": " << json(text).dump() << "}\n";
    }
    World()->Barrier();
  }

  // The lines that a job of all ranks, or of each alone, writes.
  std::vector<json> Lines(int degree) {
    const auto result = GenerateFile(options_, World(), degree, nullptr);
    EXPECT_TRUE(result.ok()) << result.status();
    return ReadLines(result);
  }
  std::vector<json> LinesAlone() {
    GenerateFileOptions options = options_;
    options_.output = folder_ / ("alone_" + std::to_string(World()->rank()));
    const auto result = GenerateFile(options_, NewSelfCommunicator("world"), 0, nullptr);
    EXPECT_TRUE(result.ok()) << result.status();
    const std::vector<json> lines = ReadLines(result);
    options_ = options;
    return lines;
  }

  SharedFolder folder_;
  GenerateFileOptions options_;

 private:
  std::vector<json> ReadLines(const absl::StatusOr<GenerateFileResult>& result) {
    std::vector<json> lines;
    int64_t tokens = 0;
    std::ifstream file(options_.output);
    for (std::string line; std::getline(file, line);) {
      lines.push_back(json::parse(line));
      tokens += static_cast<int64_t>(lines.back()["token_ids"].size());
    }
    EXPECT_EQ(lines.size(), kTexts.size());
    if (result.ok()) {
      EXPECT_EQ(result->texts, static_cast<int64_t>(kTexts.size()));
      EXPECT_EQ(result->tokens, tokens);
    }
    World()->Barrier();  // the next job replaces the file
    return lines;
  }
};

void ExpectAlike(const std::vector<json>& lines, const std::vector<json>& expected) {
  ASSERT_EQ(lines.size(), expected.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["input"], expected[i]["input"]);
    EXPECT_EQ(lines[i]["output"], expected[i]["output"]);
    EXPECT_EQ(lines[i]["token_ids"], expected[i]["token_ids"]);
    EXPECT_NEAR(lines[i]["score"].get<double>(), expected[i]["score"].get<double>(), 1e-9);
  }
}

TEST_F(GenerateFileTest, EveryTextGetsALineInItsPlace) {
  const std::vector<json> lines = Lines(1);
  std::set<json> outputs;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["input"], kTexts[i]);
    const auto ids = lines[i]["token_ids"].get<std::vector<int64_t>>();
    EXPECT_FALSE(ids.empty());
    EXPECT_LE(ids.size(), 9u);
    for (const int64_t id : ids) EXPECT_LE(id, kEnd) << "the tokenizer has no other";
    EXPECT_LT(lines[i]["score"].get<double>(), 0);
    outputs.insert(lines[i]["token_ids"]);
  }
  EXPECT_GE(outputs.size(), 4u) << "the texts do not matter";
}

// Batches of one text have no padding, and leave all ranks but one without rows.
TEST_F(GenerateFileTest, LayoutAndBatchSizeDoNotMatter) {
  for (const int64_t beams : {1, 3}) {
    options_.search.beams = beams;
    options_.batch_size = 1;
    const std::vector<json> expected = LinesAlone();
    for (const int64_t batch_size : {1, 4, 100}) {
      options_.batch_size = batch_size;
      for (const int degree : Degrees()) ExpectAlike(Lines(degree), expected);
    }
  }
}

TEST_F(GenerateFileTest, AFileThatCannotBeWrittenIsKnownBeforehand) {
  options_.output = folder_ / "texts.jsonl/outputs";
  const auto result = GenerateFile(options_, World(), 0, nullptr);
  EXPECT_EQ(ExitCodeOf(result.status()), ExitCode::kIo) << result.status();
}

TEST_F(GenerateFileTest, ModelsWithoutAnEncoderAreRefused) {
  options_.checkpoint = HYPERMOE_TEST_DATA "/gpt2_dense";
  const auto result = GenerateFile(options_, World(), 0, nullptr);
  EXPECT_EQ(ExitCodeOf(result.status()), ExitCode::kUsage);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("--prompt"));
}

}  // namespace
}  // namespace hypermoe
