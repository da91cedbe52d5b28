// The experiments of configs/gpt2_small: all load, and say of themselves what is true.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/config_loader.h"
#include "runtime/memory_plan.h"
#include "runtime/model_cost.h"
#include "runtime/run_length.h"
#include "tests/support/config_files.h"
#include "tests/support/tiny_gpt2_vocabulary.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

// 124439808 as 124,439,808.
std::string Grouped(int64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

// What the head of the file must say.
std::string NumbersOf(const RunConfig& config) {
  const ParameterCounts parameters = CountParameters(config);
  const bool dense = config.model().kind() == ModelConfig::dense;
  std::string text = absl::StrCat("# Parameters  ", Grouped(parameters.total()));
  if (!dense)
    absl::StrAppend(&text, ", of them ", Grouped(parameters.active), " active for a token");
  const double flops = CountFlops(config)->TrainingPerToken(BatchTokens(config));
  absl::StrAppendFormat(&text, "\n# Training    %.1f million floating-point operations a token\n",
                        flops * 1e-6);
  const auto bytes = static_cast<double>(PlanMemory(config, 8, dense ? 1 : 8).total());
  absl::StrAppendFormat(&text, "# Memory      %.1f GiB a rank at 8 ranks%s (computed)\n",
                        bytes / (1 << 30), dense ? "" : " with expert degree 8");
  return text;
}

std::vector<std::string> ConfigFiles() { return ConfigsIn("gpt2_small"); }

std::string PathOf(const std::string& name) { return ConfigPath("gpt2_small", name); }

TEST(Gpt2SmallConfigsTest, AreTheOnesExpected) {
  EXPECT_THAT(ConfigFiles(),
              testing::ElementsAre("dense", "hyper_16", "hyper_32", "hyper_64", "hyper_8", "moe_16",
                                   "moe_32", "moe_64", "moe_8", "moe_share_16", "moe_share_32",
                                   "moe_share_64", "moe_share_8"));
}

class Gpt2SmallConfigTest : public testing::TestWithParam<std::string> {};

TEST_P(Gpt2SmallConfigTest, RunsOnceItHasTokenizerAndText) {
  const TemporaryFolder folder;
  const auto config =
      LoadConfig(PathOf(GetParam()),
                 {"data.train=some/text", "data.tokenizer=" + WriteTinyGpt2(folder, kTinyMerges)});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(ValidateConfig(*config).ok()) << ValidateConfig(*config);
  EXPECT_EQ(TotalSteps(*config), 19074);
  // The file is called after its kind and its experts.
  const ModelConfig& model = config->model();
  const std::string kind = ModelConfig::Kind_Name(model.kind());
  EXPECT_EQ(GetParam(), model.kind() == ModelConfig::dense
                            ? kind
                            : absl::StrCat(kind, "_", model.num_experts()));
}

TEST_P(Gpt2SmallConfigTest, AsksForTheTokenizersFolder) {
  const auto config = LoadConfig(PathOf(GetParam()), {"data.train=some/text"});
  ASSERT_TRUE(config.ok()) << config.status();
  const absl::Status status = ValidateConfig(*config);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
  EXPECT_THAT(std::string(status.message()), HasSubstr("data.tokenizer: the tokenizer 'gpt2' names "
                                                       "no vocabulary: give gpt2:DIR"));
}

TEST_P(Gpt2SmallConfigTest, SaysItsSizeAtTheHead) {
  const auto config = LoadConfig(PathOf(GetParam()), {});
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string text = ReadFile(PathOf(GetParam()));
  EXPECT_THAT(text.substr(0, text.find("\n\n") + 1), testing::EndsWith("#\n" + NumbersOf(*config)));
}

INSTANTIATE_TEST_SUITE_P(All, Gpt2SmallConfigTest, testing::ValuesIn(ConfigFiles()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace hypermoe
