// The experiments of configs/switch_base: all load, and run once they have tokenizer and text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/config_loader.h"
#include "runtime/model_cost.h"
#include "runtime/row_format.h"
#include "runtime/run_length.h"
#include "tests/support/config_files.h"
#include "tests/support/tiny_sentencepiece.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

std::vector<std::string> ConfigFiles() { return ConfigsIn("switch_base"); }

std::string PathOf(const std::string& name) { return ConfigPath("switch_base", name); }

TEST(SwitchBaseConfigsTest, AreTheOnesExpected) {
  EXPECT_THAT(ConfigFiles(), testing::ElementsAre("hyper_16", "hyper_32", "hyper_64", "hyper_8",
                                                  "moe_16", "moe_32", "moe_64", "moe_8"));
}

class SwitchBaseConfigTest : public testing::TestWithParam<std::string> {};

TEST_P(SwitchBaseConfigTest, RunsOnceItHasTokenizerAndText) {
  const TemporaryFolder folder;
  const auto config =
      LoadConfig(PathOf(GetParam()),
                 {"data.train=some/text", "data.tokenizer=" + WriteTinySentencePiece(folder)});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(ValidateConfig(*config).ok()) << ValidateConfig(*config);
  EXPECT_EQ(TotalSteps(*config), 19074);
  const auto format = MakeRowFormat(config->data(), config->model());
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ((*format)->sizes().stride, 568);
  EXPECT_EQ((*format)->sizes().labels, 114);
  // The file is called after its kind and its experts.
  EXPECT_EQ(GetParam(), absl::StrCat(ModelConfig::Kind_Name(config->model().kind()), "_",
                                     config->model().num_experts()));
}

TEST_P(SwitchBaseConfigTest, AsksForTheTokenizersFile) {
  const auto config = LoadConfig(PathOf(GetParam()), {"data.train=some/text"});
  ASSERT_TRUE(config.ok()) << config.status();
  const absl::Status status = ValidateConfig(*config);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("data.tokenizer: the tokenizer 'spm' names no model: give spm:FILE"));
}

// 619339008 as 619,339,008.
std::string Grouped(int64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

// Those of moe are the published models'.
TEST_P(SwitchBaseConfigTest, SaysItsSizeAtTheHead) {
  const auto config = LoadConfig(PathOf(GetParam()), {});
  ASSERT_TRUE(config.ok()) << config.status();
  const ParameterCounts parameters = CountParameters(*config);
  const std::string text = ReadFile(PathOf(GetParam()));
  EXPECT_THAT(
      text.substr(0, text.find("\n\n") + 1),
      testing::EndsWith(absl::StrCat("#\n# Parameters  ", Grouped(parameters.total()), ", of them ",
                                     Grouped(parameters.active), " active for a token\n")));
}

INSTANTIATE_TEST_SUITE_P(All, SwitchBaseConfigTest, testing::ValuesIn(ConfigFiles()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace hypermoe
