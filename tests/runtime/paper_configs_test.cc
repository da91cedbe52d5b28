// configs/paper: every row is a run that can be started, and rows differ in what they are rows of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/config_loader.h"
#include "runtime/config_text.h"
#include "runtime/starting_config.h"
#include "tests/support/config_files.h"
#include "tests/support/tiny_sentencepiece.h"

namespace hypermoe {
namespace {

bool IsWikiText(const std::string& name) { return absl::StartsWith(name, "wikitext_"); }

RunConfig Given(const std::string& name) {
  const std::string task = IsWikiText(name) ? "wikitext" : "squad";
  const absl::StatusOr<RunConfig> given = ReadGivenConfig(
      ConfigPath("paper", name), {absl::StrCat("data.task=", task), "data.folder=data"});
  EXPECT_TRUE(given.ok()) << name << ": " << given.status();
  return *given;
}

// As started from a model of 8 experts.
RunConfig Started(const std::string& name, const TemporaryFolder& folder) {
  const std::string tokenizer = IsWikiText(name) ? "byte" : WriteTinySentencePiece(folder);
  const absl::StatusOr<RunConfig> start =
      LoadConfig(ConfigPath(IsWikiText(name) ? "gpt2_small" : "switch_base", "moe_8"),
                 {"data.train=tokens", "data.tokenizer=" + tokenizer});
  EXPECT_TRUE(start.ok()) << start.status();
  return StartingFrom(*start, Given(name));
}

TEST(PaperConfigsTest, EveryRowCanBeStarted) {
  const TemporaryFolder folder;
  const std::vector<std::string> names = ConfigsIn("paper");
  EXPECT_EQ(names.size(), 15u);
  for (const std::string& name : names) {
    const absl::Status status = ValidateConfig(Started(name, folder));
    EXPECT_TRUE(status.ok()) << name << ": " << status;
  }
}

TEST(PaperConfigsTest, RowsAreWhatTheirNamesSay) {
  const TemporaryFolder folder;
  for (const std::string& name : ConfigsIn("paper")) {
    SCOPED_TRACE(name);
    const RunConfig config = Started(name, folder);
    const std::string row = IsWikiText(name) ? name.substr(9) : name;
    EXPECT_EQ(config.model().kind(), absl::StartsWith(row, "moe_share") ? ModelConfig::moe_share
                                     : absl::StartsWith(row, "moe")     ? ModelConfig::moe
                                                                        : ModelConfig::hyper);
    EXPECT_EQ(config.model().num_experts(), absl::EndsWith(row, "_16")   ? 16
                                            : absl::EndsWith(row, "_32") ? 32
                                                                         : 8);
    EXPECT_EQ(config.hyper().condition(), absl::EndsWith(row, "_hidden")    ? HyperConfig::hidden
                                          : absl::EndsWith(row, "_weights") ? HyperConfig::weights
                                          : absl::EndsWith(row, "_selected")
                                              ? HyperConfig::selected
                                              : HyperConfig::unselected);
  }
}

// What is compared is trained alike.
TEST(PaperConfigsTest, RowsDifferInTheModelAlone) {
  for (const std::string& name : ConfigsIn("paper")) {
    RunConfig row = Given(name), first = Given(IsWikiText(name) ? "wikitext_moe" : "moe");
    for (RunConfig* config : {&row, &first}) {
      config->clear_model();
      config->clear_hyper();
    }
    EXPECT_EQ(ConfigText(row), ConfigText(first)) << name;
  }
}

}  // namespace
}  // namespace hypermoe
