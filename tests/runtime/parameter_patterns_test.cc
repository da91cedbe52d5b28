#include "runtime/parameter_patterns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/config_loader.h"
#include "runtime/memory_plan.h"
#include "runtime/trainer.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The names that --set optimizer.no_decay=`value` gives, in a configuration.
RunConfig Exempting(const std::string& value) {
  const auto config = LoadConfig("", {"optimizer.no_decay=" + value});
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::vector<Parameter> SomeParameters() {
  std::vector<Parameter> parameters(4);
  const char* names[] = {"wte.weight", "wpe.weight", "h.0.mlp.experts.expert_{e}.c_fc.weight",
                         "ln_f.bias"};
  for (int i = 0; i < 4; ++i) {
    parameters[i].name = names[i];
    parameters[i].weight_decay = i < 3;
  }
  return parameters;
}

std::vector<std::string> Decayed(const RunConfig& config) {
  std::vector<Parameter> parameters = SomeParameters();
  std::vector<std::string> names;
  for (const Parameter& parameter : ApplyPatterns(config, parameters)) {
    if (parameter.weight_decay) names.push_back(parameter.name);
  }
  return names;
}

TEST(NoDecayTest, TakesOutWhatAPatternMatchesAndNothingElse) {
  const std::string expert = "h.0.mlp.experts.expert_{e}.c_fc.weight";
  EXPECT_THAT(Decayed({}), ElementsAre("wte.weight", "wpe.weight", expert));
  EXPECT_THAT(Decayed(Exempting("wte.*")), ElementsAre("wpe.weight", expert));
  EXPECT_THAT(Decayed(Exempting("w[tp]e.weight")), ElementsAre(expert));
  EXPECT_THAT(Decayed(Exempting("wpe.*,*.experts.*")), ElementsAre("wte.weight"));
  EXPECT_THAT(Decayed(Exempting("*")), IsEmpty());
  // Whole names, not parts of them; and what does not decay anyway does not begin to.
  EXPECT_THAT(Decayed(Exempting("wte")), ElementsAre("wte.weight", "wpe.weight", expert));
  EXPECT_THAT(Decayed(Exempting("*.bias")), ElementsAre("wte.weight", "wpe.weight", expert));
}

TEST(NoDecayTest, APatternThatMatchesNothingIsAnErrorThatNamesTheNearestName) {
  const std::vector<Parameter> parameters = SomeParameters();
  for (const char* value : {"", "wte.*", "*.bias", "*expert_{e}*"}) {
    EXPECT_TRUE(CheckPatterns(Exempting(value), parameters).ok()) << value;
  }
  const absl::Status status = CheckPatterns(Exempting("wpe.*,wte.wieght"), parameters);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("optimizer.no_decay"), HasSubstr("'wte.wieght'"), HasSubstr("'wte.weight'")));
}

// Elements that the trainer of a tiny model decays, over all groups.
int64_t DecayedElements(const std::string& no_decay) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float32);
  *config.mutable_optimizer()->mutable_no_decay() = Exempting(no_decay).optimizer().no_decay();
  Trainer trainer(config, OneRankMesh(), TinyRows(config));
  int64_t count = 0;
  for (const FlatBuffer& buffer : trainer.buffers()) count += buffer.decayed_elements();
  return count;
}

TEST(NoDecayTest, IsWhatTheTrainerDecays) {
  const int64_t all = DecayedElements("");
  const int64_t embedding = int64_t{257} * 16;
  EXPECT_EQ(DecayedElements("wte.*"), all - embedding);
  const int64_t experts = 2 * 4 * 2 * 16 * 24;  // blocks, experts, matrices of each
  EXPECT_EQ(DecayedElements("wte.*,*.experts.*"), all - embedding - experts);
  EXPECT_EQ(DecayedElements("*"), 0);
}

RunConfig Freezing(const std::string& value) {
  const auto config = LoadConfig("", {"train.freeze=" + value});
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

TEST(FreezeTest, FreezesWhatAPatternMatchesAndNothingElse) {
  std::vector<Parameter> parameters = SomeParameters();
  std::vector<std::string> names;
  for (const Parameter& parameter : ApplyPatterns(Freezing("wte.*,*.experts.*"), parameters)) {
    if (parameter.frozen) names.push_back(parameter.name);
  }
  EXPECT_THAT(names, ElementsAre("wte.weight", "h.0.mlp.experts.expert_{e}.c_fc.weight"));
}

// By the configuration alone what the trainer freezes.
TEST(FreezeTest, CountsWhatTheTrainerFreezes) {
  for (const char* patterns : {"wte.*,*.experts.*,hypermoe.*.down.*", "*.expert_{e}.c_proj.bias",
                               "hypermoe.expert_embedding.*,h.1.*"}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float32);
    *config.mutable_train()->mutable_freeze() = Freezing(patterns).train().freeze();
    Trainer trainer(config, OneRankMesh(), TinyRows(config));
    int64_t frozen = 0;
    for (const FlatBuffer& buffer : trainer.buffers())
      frozen += buffer.values().numel() - buffer.trained_elements();
    EXPECT_GT(frozen, 0) << patterns;
    EXPECT_EQ(CountFrozen(config).total(), frozen) << patterns;
    MemoryPlan whole = PlanMemory(TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float32), 1, 1),
               plan = PlanMemory(config, 1, 1);
    EXPECT_EQ(whole.gradients - plan.gradients, 4 * frozen);
    EXPECT_EQ(whole.moments - plan.moments, 8 * frozen);
    EXPECT_EQ(whole.parameters, plan.parameters);
  }
}

TEST(FreezeTest, RefusesAPatternWithoutAParameterAndARunWithoutOne) {
  const std::vector<Parameter> parameters = SomeParameters();
  EXPECT_TRUE(CheckPatterns(Freezing("w*,h.*"), parameters).ok());
  const absl::Status unmatched = CheckPatterns(Freezing("wte.*,h.1.*"), parameters);
  EXPECT_EQ(ExitCodeOf(unmatched), ExitCode::kConfig);
  EXPECT_THAT(std::string(unmatched.message()),
              AllOf(HasSubstr("train.freeze"), HasSubstr("'h.1.*'")));
  const absl::Status all = CheckPatterns(Freezing("w*,h.*,ln_f.*"), parameters);
  EXPECT_EQ(ExitCodeOf(all), ExitCode::kConfig);
  EXPECT_THAT(std::string(all.message()), HasSubstr("nothing to train"));
}

}  // namespace
}  // namespace hypermoe
