#include "runtime/config_loader.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "runtime/run_length.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using google::protobuf::util::MessageDifferencer;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string ErrorOf(const std::vector<std::string>& overrides) {
  const auto config = LoadConfig("", overrides);
  EXPECT_FALSE(config.ok());
  EXPECT_EQ(ExitCodeOf(config.status()), ExitCode::kConfig);
  return std::string(config.status().message());
}

std::string ErrorOfText(const std::string& text) {
  const auto config = ParseConfigText(text, "a.textproto");
  EXPECT_FALSE(config.ok()) << text;
  EXPECT_EQ(ExitCodeOf(config.status()), ExitCode::kConfig);
  return std::string(config.status().message());
}

std::string ValidationErrorOf(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"train.steps=1000"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const auto config = LoadConfig("", all);
  EXPECT_TRUE(config.ok()) << config.status();
  const absl::Status status = ValidateConfig(*config);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
  return std::string(status.message());
}

TEST(LoadConfigTest, EveryAbsentFieldIsSetToItsDefault) {
  const auto config = LoadConfig("", {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->model().balance_loss().has_scope());
  EXPECT_TRUE(config->data().has_validation());
  EXPECT_TRUE(config->runtime().has_seed());
  EXPECT_EQ(config->model().num_layers(), 4);
  EXPECT_EQ(config->model().balance_loss().coefficient(), 0.01);
  EXPECT_TRUE(ValidateConfig(*LoadConfig("", {"train.steps=1000"})).ok());
}

TEST(LoadConfigTest, OverridesApplyInOrderOverTheFile) {
  const TemporaryFolder folder;
  const std::string path =
      folder.Write("c.textproto", "model { num_layers: 2 sparse_layers: [0, 1] } # comment\n");
  const auto config =
      LoadConfig(path, {"model.num_layers=6", "model.num_layers=7", "model.sparse_layers=1,3",
                        "data.train=a=b:2.5,c", "optimizer.learning_rate=2.5e-4", "model.kind=moe",
                        "runtime.seed=18446744073709551615", "model.balance_loss.scope=row"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model().num_layers(), 7);
  EXPECT_THAT(config->model().sparse_layers(), ::testing::ElementsAre(1, 3));
  ASSERT_EQ(config->data().train_size(), 2);
  EXPECT_EQ(config->data().train(0).prefix(), "a=b");
  EXPECT_EQ(config->data().train(0).weight(), 2.5);
  EXPECT_EQ(config->data().train(1).prefix(), "c");
  EXPECT_TRUE(config->data().train(1).has_weight());
  EXPECT_EQ(config->data().train(1).weight(), 1);
  EXPECT_EQ(config->optimizer().learning_rate(), 2.5e-4);
  EXPECT_EQ(config->model().kind(), ModelConfig::moe);
  EXPECT_EQ(config->runtime().seed(), 18446744073709551615u);
  EXPECT_EQ(config->model().balance_loss().scope(), BalanceLossConfig::row);
  EXPECT_EQ(LoadConfig(path, {"model.sparse_layers="})->model().sparse_layers_size(), 0);
}

TEST(LoadConfigTest, AnOverrideThatCannotBeAppliedNamesFieldValueAndWhatIsAllowed) {
  EXPECT_THAT(ErrorOf({"model.num_layer=4"}), AllOf(HasSubstr("unknown field 'model.num_layer'"),
                                                    HasSubstr("did you mean 'model.num_layers'?")));
  EXPECT_THAT(ErrorOf({"modle.kind=moe"}), HasSubstr("'model.kind'"));
  EXPECT_THAT(ErrorOf({"train.learning_rate=1"}),
              HasSubstr("did you mean 'optimizer.learning_rate'?"));
  EXPECT_THAT(ErrorOf({"model.num_layers.x=4"}), HasSubstr("unknown field"));
  EXPECT_THAT(ErrorOf({"=4"}), HasSubstr("unknown field ''"));
  EXPECT_THAT(ErrorOf({"model=4"}), HasSubstr("'model' is a section"));
  EXPECT_THAT(ErrorOf({"model.num_layers"}), HasSubstr("PATH=VALUE"));
  EXPECT_THAT(ErrorOf({"model.num_layers=0"}),
              AllOf(HasSubstr("'model.num_layers' is 0"), HasSubstr("from 1 to 256")));
  EXPECT_THAT(ErrorOf({"model.num_layers=99999999999"}),
              AllOf(HasSubstr("99999999999"), HasSubstr("an integer from 1 to 256")));
  EXPECT_THAT(ErrorOf({"model.num_layers=4x"}), HasSubstr("cannot be '4x'"));
  EXPECT_THAT(ErrorOf({"model.num_layers="}), HasSubstr("cannot be ''"));
  EXPECT_THAT(ErrorOf({"model.sparse_layers=1,,2"}), HasSubstr("cannot be ''"));
  EXPECT_THAT(ErrorOf({"model.sparse_layers=1,300"}), HasSubstr("from 0 to 255"));
  EXPECT_THAT(ErrorOf({"model.init_std=0"}), HasSubstr("above 0, at most 10"));
  EXPECT_THAT(ErrorOf({"model.dropout=nan"}),
              AllOf(HasSubstr("'model.dropout' is nan"), HasSubstr("from 0 to 0.95")));
  EXPECT_THAT(ErrorOf({"optimizer.clip_norm=inf"}), HasSubstr("is inf"));
  EXPECT_THAT(ErrorOf({"runtime.seed=-1"}), HasSubstr("cannot be '-1'"));
  EXPECT_THAT(ErrorOf({"model.kind=hypr"}),
              AllOf(HasSubstr("'hypr'"), HasSubstr("dense, moe, hyper"),
                    HasSubstr("did you mean 'hyper'?")));
}

TEST(LoadConfigTest, TheShortFormOfTrainFilesReplacesTheList) {
  const TemporaryFolder folder;
  const std::string path = folder.Write(
      "c.textproto", "data { train { prefix: 'odd:name,1' weight: 3 } train { prefix: 'b' } }");
  EXPECT_EQ(LoadConfig(path, {})->data().train(0).prefix(), "odd:name,1");
  EXPECT_EQ(LoadConfig(path, {})->data().train(1).weight(), 1);
  const auto one = LoadConfig(path, {"data.train=data/mine"});
  ASSERT_EQ(one->data().train_size(), 1);
  EXPECT_EQ(one->data().train(0).prefix(), "data/mine");
  EXPECT_EQ(LoadConfig(path, {"data.train="})->data().train_size(), 0);
}

TEST(LoadConfigTest, AShortFormThatCannotBeReadSaysHowElse) {
  for (const char* value : {"a:b", "a:1:2", "a,,b", ":2", "a:", "a:2,"}) {
    EXPECT_THAT(ErrorOf({std::string("data.train=") + value}),
                AllOf(HasSubstr("PREFIX or PREFIX:WEIGHT"), HasSubstr("train { prefix: \"...\" }")))
        << value;
  }
  EXPECT_THAT(ErrorOf({"data.train=a:0"}),
              AllOf(HasSubstr("'data.train.weight' is 0"), HasSubstr("a number above 0")));
  EXPECT_THAT(ErrorOf({"data.train=a:-1"}), HasSubstr("'data.train.weight' is -1"));
  EXPECT_THAT(ErrorOf({"data.train=a,b:nan"}), HasSubstr("'data.train.weight' is nan"));
  EXPECT_THAT(ErrorOf({"data.train=a:inf"}), HasSubstr("'data.train.weight' is inf"));
  EXPECT_THAT(ErrorOf({"data.train.prefix=a"}),
              AllOf(HasSubstr("'data.train.prefix' is part of a list"),
                    HasSubstr("data.train=ITEM,ITEM,...")));
  EXPECT_THAT(ErrorOfText("data { train { prefix: 'a' weight: 0 } }"),
              HasSubstr("'data.train.weight' is 0"));
  EXPECT_THAT(ErrorOfText("data { train: 'a' }"), HasSubstr("'data.train': Expected"));
  EXPECT_THAT(ErrorOfText("data { train { wight: 1 } }"), HasSubstr("'data.train.weight'?"));
}

TEST(ParseConfigTextTest, ErrorsNameFileLineColumnAndField) {
  EXPECT_THAT(ErrorOfText("model {\n  num_layer: 2\n}"),
              AllOf(HasSubstr("a.textproto:2:3: "), HasSubstr("'model.num_layer'"),
                    HasSubstr("'model.num_layers'?")));
  EXPECT_THAT(ErrorOfText("model {}\nmodle { num_layers: 2 }"),
              AllOf(HasSubstr("a.textproto:2:1: "), HasSubstr("did you mean 'model'?")));
  EXPECT_THAT(ErrorOfText("model { balance_loss { scop: row } }"),
              AllOf(HasSubstr(":1:24: "), HasSubstr("'model.balance_loss.scope'?")));
  EXPECT_THAT(
      ErrorOfText("model { kind: mo\n num_layers: 3 }"),
      AllOf(HasSubstr("a.textproto:1:15: "), HasSubstr("'mo'"), HasSubstr("dense, moe, hyper")));
  EXPECT_THAT(ErrorOfText("model { num_layers: abc }"),
              AllOf(HasSubstr("a.textproto:1:21: "), HasSubstr("'model.num_layers'"),
                    HasSubstr("from 1 to 256")));
  EXPECT_THAT(ErrorOfText("model { sparse_layers: [1, x] }"), HasSubstr("'model.sparse_layers'"));
  EXPECT_THAT(ErrorOfText("model { num_layers: 99999999999 }"), HasSubstr("'model.num_layers'"));
  EXPECT_THAT(ErrorOfText("model { num_layers: 0 }"),
              HasSubstr("a.textproto: 'model.num_layers' is 0"));
  EXPECT_THAT(ErrorOfText("model { dropout: nan }"), HasSubstr("'model.dropout' is nan"));
  EXPECT_THAT(ErrorOfText("model {\n num_layers 2 }"), HasSubstr("a.textproto:2:13: "));
  EXPECT_THAT(ErrorOfText("model { num_layers: 2 num_layers: 3 }"),
              AllOf(HasSubstr("a.textproto:1:33: "), HasSubstr("(at 'model.num_layers')")));
  EXPECT_THAT(ErrorOfText("model { "), HasSubstr("a.textproto:1:"));
  EXPECT_THAT(ErrorOfText(std::string(100, '{')), HasSubstr("a.textproto:1:1: "));
  EXPECT_THAT(ErrorOfText(std::string((1 << 20) + 1, ' ')), HasSubstr("longer than 1048576 bytes"));
}

TEST(ParseConfigTextTest, DeepNestingIsAnErrorAndNotACrash) {
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "model{";
  EXPECT_THAT(ErrorOfText(text), HasSubstr("a.textproto:1:"));
}

TEST(LoadConfigTest, AFileThatCannotBeReadIsAnIoError) {
  const TemporaryFolder folder;
  const auto missing = LoadConfig(folder / "none.textproto", {});
  EXPECT_EQ(ExitCodeOf(missing.status()), ExitCode::kIo);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("none.textproto"));
  EXPECT_EQ(ExitCodeOf(LoadConfig(folder / "", {}).status()), ExitCode::kIo);
}

TEST(ConfigTextTest, ReadsBackToAnEqualMessage) {
  const auto config =
      LoadConfig("", {"optimizer.learning_rate=0.1234567890123456789", "optimizer.epsilon=4.9e-324",
                      "model.sparse_layers=3,1",
                      "data.train=a \"quoted\" \\ p\xC3\xA4th\n\xFF,b:0.1234567890123456789"});
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string text = ConfigText(*config);
  const auto again = ParseConfigText(text, "text");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*config, *again)) << text;
  EXPECT_EQ(again->optimizer().learning_rate(), 0.1234567890123456789);
  EXPECT_EQ(ConfigText(*again), text);
  EXPECT_THAT(ConfigText(RunConfig()), HasSubstr("num_layers: 4"));
}

TEST(ValidateConfigTest, NamesBothFieldsOfABrokenRelation) {
  EXPECT_THAT(ValidationErrorOf({"model.hidden_size=33"}),
              AllOf(HasSubstr("model.hidden_size (33)"), HasSubstr("model.num_heads (4)")));
  EXPECT_THAT(ValidationErrorOf({"model.sparse_layers=1,4"}), HasSubstr("block 4"));
  EXPECT_THAT(ValidationErrorOf({"model.sparse_layers=1,1"}), HasSubstr("block 1 twice"));
  EXPECT_THAT(ValidationErrorOf({"model.kind=dense", "model.sparse_layers=1"}), HasSubstr("dense"));
  EXPECT_THAT(ValidationErrorOf({"train.micro_batches=33"}), HasSubstr("train.micro_batches (33)"));
  EXPECT_THAT(ValidationErrorOf({"optimizer.min_learning_rate=1"}),
              HasSubstr("optimizer.min_learning_rate (1)"));
  EXPECT_THAT(ValidationErrorOf({"optimizer.warmup_steps=1001"}),
              HasSubstr("optimizer.warmup_steps (1001)"));
  EXPECT_THAT(ValidationErrorOf({"model.vocab_size=256"}), HasSubstr("model.vocab_size (256)"));
  EXPECT_THAT(ValidationErrorOf({"data.tokenizer=bite"}), HasSubstr("unknown tokenizer 'bite'"));
  EXPECT_THAT(ValidationErrorOf({"mesh.gpu_transport=host_staged"}),
              HasSubstr("set mesh.device=cuda"));
}

TEST(ValidateConfigTest, RefusesWhatTheOptimizerDoesNotUse) {
  const std::string adafactor = "optimizer.kind=adafactor";
  const auto valid = [](const std::vector<std::string>& overrides) {
    RunConfig config = *LoadConfig("", overrides);
    config.mutable_train()->set_steps(1000);
    return ValidateConfig(config).ok();
  };
  EXPECT_TRUE(valid({adafactor, "optimizer.decay_rate=0.9"}));
  EXPECT_TRUE(valid({adafactor, "optimizer.weight_decay=0.1"})) << "as by default";
  for (const char* field : {"beta1=0.8", "beta2=0.8", "epsilon=0.1", "weight_decay=0",
                            "no_decay=wte.*", "zero1=true"}) {
    const std::string setting = std::string("optimizer.") + field;
    EXPECT_TRUE(valid({setting}));
    EXPECT_THAT(ValidationErrorOf({adafactor, setting}),
                AllOf(HasSubstr(setting.substr(0, setting.find('=')) + " is set"),
                      HasSubstr("optimizer.kind is adafactor"), HasSubstr("adamw")));
  }
  for (const char* field :
       {"decay_rate=0.9", "epsilon1=1e-20", "epsilon2=0.1", "clipping_threshold=0",
        "min_dim_size_to_factor=4", "multiply_by_parameter_scale=false"}) {
    const std::string setting = std::string("optimizer.") + field;
    EXPECT_THAT(ValidationErrorOf({setting}),
                AllOf(HasSubstr(setting.substr(0, setting.find('=')) + " is set"),
                      HasSubstr("set optimizer.kind to adafactor")));
  }
}

TEST(LoadConfigTest, APresetFillsInWhatIsNotGiven) {
  const RunConfig official = *LoadConfig("", {"hyper.preset=official_v1", "hyper.share=layer"});
  EXPECT_EQ(official.hyper().agg(), HyperConfig::sum);
  EXPECT_TRUE(official.hyper().gen_bias());
  EXPECT_EQ(official.hyper().init(), HyperConfig::off_small);
  EXPECT_EQ(official.hyper().share(), HyperConfig::layer) << "given, so it stays";
  EXPECT_TRUE(official.hyper().lin_bias());
  EXPECT_FALSE(LoadConfig("", {"hyper.preset=paper"})->hyper().lin_bias());
  // On the command line it is stronger than a file, which may hold every field.
  const TemporaryFolder folder;
  const std::string path = folder.Write("config.textproto", ConfigText(RunConfig()));
  const RunConfig changed = *LoadConfig(path, {"hyper.share=layer", "hyper.preset=official_v1"});
  EXPECT_EQ(changed.hyper().agg(), HyperConfig::sum);
  EXPECT_EQ(changed.hyper().share(), HyperConfig::layer);
  // A run's own configuration is complete: what it holds is what it was.
  RunConfig saved = *LoadConfig("", {"hyper.preset=official_v1", "hyper.agg=mean"});
  EXPECT_EQ(ParseConfigText(ConfigText(saved), "text")->hyper().agg(), HyperConfig::mean);
}

TEST(ValidateConfigTest, AnOptionThatTheModelCannotFollowIsNamed) {
  EXPECT_THAT(ValidationErrorOf({"model.top_k=9"}),
              AllOf(HasSubstr("model.top_k (9)"), HasSubstr("model.num_experts (8)")));
  EXPECT_TRUE(ValidateConfig(*LoadConfig("", {"train.steps=1000", "model.top_k=8"})).ok());
  EXPECT_THAT(ValidationErrorOf({"model.attention_dropout=-0.5"}),
              HasSubstr("model.attention_dropout (-0.5)"));
  EXPECT_THAT(ValidationErrorOf({"hyper.z=one_minus_prob", "hyper.condition=selected"}),
              AllOf(HasSubstr("hyper.z is one_minus_prob"), HasSubstr("condition is selected")));
  for (const char* execution : {"source", "owner"}) {
    const std::string set = std::string("hyper.execution=") + execution;
    EXPECT_THAT(ValidationErrorOf({set, "hyper.condition=hidden"}),
                AllOf(HasSubstr(execution), HasSubstr("every token has its own")));
    EXPECT_THAT(ValidationErrorOf({set, "hyper.z=one_minus_prob"}),
                HasSubstr("hyper.z one_minus_prob every token has its own"));
    EXPECT_THAT(ValidationErrorOf({set, "model.num_experts=64", "model.top_k=8"}),
                HasSubstr("top 8 of 64 experts are too many selections"));
  }
  EXPECT_TRUE(ValidateConfig(*LoadConfig("", {"train.steps=1000", "hyper.condition=hidden",
                                              "hyper.execution=bilinear"}))
                  .ok());
}

TEST(ValidateConfigTest, ExpertsThatCannotBeEncodedAreNamed) {
  const auto error = [](std::vector<std::string> changes) {
    changes.insert(changes.begin(), {"hyper.condition=weights", "model.hidden_size=768",
                                     "model.ffn_size=3072", "model.num_heads=12"});
    return ValidationErrorOf(changes);
  };
  for (const char* set : {"model.ffn_size=1919", "model.ffn_size=3840", "model.hidden_size=708",
                          "model.hidden_size=1440", "hyper.expert_embedding_dim=64"}) {
    EXPECT_THAT(error({set}),
                AllOf(HasSubstr("model.ffn_size from 1920 to 3839"),
                      HasSubstr("model.hidden_size from 720 to 1439"),
                      HasSubstr(std::string(set).substr(std::string(set).find('=') + 1))))
        << set;
  }
  EXPECT_THAT(error({"hyper.execution=owner", "hyper.z=one_minus_prob"}),
              HasSubstr("every token has its own"));
  for (const char* set : {"hyper.conv_act=none", "hyper.conv_grad_to_experts=true"}) {
    EXPECT_THAT(ValidationErrorOf({set}),
                AllOf(HasSubstr(std::string(set).substr(0, std::string(set).find('='))),
                      HasSubstr("hyper.condition is unselected, which does not use it")));
    EXPECT_TRUE(ValidateConfig(*LoadConfig("", {"train.steps=1000", "hyper.condition=weights",
                                                "model.hidden_size=720", "model.ffn_size=1920", set,
                                                "hyper.emb_scope=model", "hyper.z=one_minus_prob"}))
                    .ok())
        << set;
  }
}

// A loaded configuration of a Switch Transformer, changed.
std::vector<std::string> Switch(std::vector<std::string> changes) {
  changes.insert(changes.begin(), {"train.steps=1000", "model.family=switch_transformers",
                                   "model.vocab_size=512", "model.end_id=256"});
  return changes;
}

TEST(ValidateConfigTest, WhatAFamilyDoesNotUseIsNamed) {
  for (const char* set :
       {"model.sparse_layers=1", "model.init_std=0.1", "model.embedding_dropout=0.1",
        "model.attention_dropout=0", "model.router=noisy_topk", "model.renormalize=true"}) {
    EXPECT_THAT(ValidationErrorOf(Switch({set})),
                AllOf(HasSubstr(std::string(set).substr(0, std::string(set).find('='))),
                      HasSubstr("switch_transformers, which does not use it")));
  }
  for (const char* set : {"model.num_decoder_layers=3", "model.tie_embeddings=false",
                          "model.expert_dropout=0.4", "model.decoder_start_id=2"}) {
    EXPECT_THAT(ValidationErrorOf({set}), HasSubstr("gpt2, which does not use it")) << set;
    EXPECT_TRUE(ValidateConfig(*LoadConfig("", Switch({set}))).ok()) << set;
  }
  const std::string scope = "model.balance_loss.scope=stack_row";
  EXPECT_THAT(ValidationErrorOf({scope}), HasSubstr("scope is stack_row, but model.family gpt2"));
  EXPECT_THAT(ValidationErrorOf(Switch({scope, "model.load_coefficient=0.1"})),
              HasSubstr("model.load_coefficient is 0.1"));
  EXPECT_THAT(ValidationErrorOf(Switch({"model.balance_loss.dropped_count_as_first=true"})),
              HasSubstr("set the scope to stack_row"));
}

TEST(ValidateConfigTest, ADenseModelSetsNothingOfExperts) {
  for (const char* set :
       {"model.expert_dropout=0.4", "model.encoder_sparse_step=1", "model.decoder_sparse_step=0",
        "model.router_bias=true", "model.router_choice_rounded=true"}) {
    EXPECT_THAT(ValidationErrorOf(Switch({"model.kind=dense", set})),
                AllOf(HasSubstr(std::string(set).substr(0, std::string(set).find('='))),
                      HasSubstr("kind dense has no experts")))
        << set;
  }
  EXPECT_TRUE(ValidateConfig(*LoadConfig("", Switch({"model.kind=dense"}))).ok());
}

TEST(ValidateConfigTest, HuggingFacesHabitsNeedWhatTheyAreAbout) {
  EXPECT_THAT(ValidationErrorOf(Switch({"model.router_jitter_in_place=true"})),
              HasSubstr("model.router_jitter is 0"));
  EXPECT_THAT(ValidationErrorOf(Switch({"model.router_choice_rounded=true"})),
              HasSubstr("runtime.dtype is float32"));
  EXPECT_TRUE(
      ValidateConfig(
          *LoadConfig("", Switch({"model.router_jitter_in_place=true", "model.router_jitter=0.01",
                                  "model.router_choice_rounded=true", "runtime.dtype=bfloat16",
                                  "model.router_bias=true"})))
          .ok());
  EXPECT_THAT(ValidationErrorOf({"model.router_bias=true"}), HasSubstr("model.family is gpt2"));
  EXPECT_THAT(ValidationErrorOf({"train.loss_norm=own_means"}), HasSubstr("without data.task"));
}

TEST(ValidateConfigTest, ASwitchTransformerFitsTogether) {
  EXPECT_THAT(ValidationErrorOf(Switch({"model.num_heads=3"})), HasSubstr("model.num_heads (3)"));
  EXPECT_TRUE(
      ValidateConfig(*LoadConfig("", Switch({"model.num_heads=3", "model.head_size=5"}))).ok());
  EXPECT_THAT(
      ValidationErrorOf(Switch({"model.encoder_sparse_step=0", "model.decoder_sparse_step=5",
                                "model.num_decoder_layers=1"})),
      HasSubstr("no block is sparse"));
  EXPECT_THAT(ValidationErrorOf(Switch({"model.relative_buckets=7"})), HasSubstr("must be even"));
  EXPECT_THAT(ValidationErrorOf(Switch({"model.relative_max_distance=16"})),
              HasSubstr("model.relative_max_distance (16)"));
  EXPECT_THAT(ValidationErrorOf(Switch({"model.pad_id=512"})), HasSubstr("model.pad_id (512)"));
  EXPECT_THAT(ValidationErrorOf(Switch({"model.expert_dropout=-0.5"})),
              HasSubstr("model.expert_dropout (-0.5)"));
}

TEST(ValidateConfigTest, GapsBelongToTheFamilyThatFillsThem) {
  for (const char* field : {"data.noise_density", "data.mean_span_length"}) {
    EXPECT_THAT(ValidationErrorOf({absl::StrCat(field, field[5] == 'n' ? "=0.5" : "=2")}),
                AllOf(HasSubstr(absl::StrCat(field, " is set, but model.family is gpt2")),
                      HasSubstr("switch_transformers")));
  }
}

TEST(ValidateConfigTest, ALengthInStepsOrInTokensIsNeeded) {
  EXPECT_THAT(ValidationErrorOf({"train.tokens=5"}),
              HasSubstr("train.steps (1000) and train.tokens (5) are both set"));
  EXPECT_THAT(ValidationErrorOf({"train.steps=0"}),
              HasSubstr("train.steps, train.tokens and train.epochs are all 0"));
  // 32 rows of 128 tokens are 4096 tokens a step.
  EXPECT_THAT(ValidationErrorOf({"train.steps=0", "train.tokens=405504"}),
              HasSubstr("optimizer.warmup_steps (100) must be at most the steps of the run (99, "
                        "by train.tokens (405504))"));
  EXPECT_TRUE(ValidateConfig(*LoadConfig("", {"train.tokens=405505"})).ok());
  EXPECT_THAT(ValidationErrorOf({"train.steps=0", "train.tokens=1000000000000000000"}),
              HasSubstr("are 244140625000000 steps"));
}

TEST(ValidateConfigTest, FilesToTrainOnAreNamedOnceWithAWeightThatCounts) {
  EXPECT_THAT(ValidationErrorOf({"data.train=a,b,a:2"}), HasSubstr("data.train names a twice"));
  EXPECT_THAT(ValidationErrorOf({"data.train=a:1e7,b"}),
              AllOf(HasSubstr("the weight of b (1)"), HasSubstr("less than a millionth")));
  RunConfig config = *LoadConfig("", {"train.steps=1000"});
  config.mutable_data()->add_train()->set_weight(2);
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("without a prefix"));
}

TEST(RunLengthTest, TokensAreReachedInWholeSteps) {
  const auto steps = [](const std::string& tokens) {
    return TotalSteps(*LoadConfig("", {"train.tokens=" + tokens}));
  };
  EXPECT_EQ(steps("1"), 1);
  EXPECT_EQ(steps("4096"), 1);
  EXPECT_EQ(steps("4097"), 2);
  EXPECT_EQ(steps("1000000000000000000"), 244140625000000);
  EXPECT_EQ(TotalSteps(*LoadConfig("", {"train.steps=7"})), 7);
  EXPECT_EQ(BatchTokens(*LoadConfig("", {})), 4096);
}

TEST(ValidateConfigTest, LimitsThemselvesAreAllowed) {
  const auto config = LoadConfig(
      "", {"train.steps=1000", "train.micro_batches=32", "optimizer.min_learning_rate=1e-3",
           "optimizer.warmup_steps=1000", "model.sparse_layers=3", "model.num_experts=1"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(ValidateConfig(*config).ok()) << ValidateConfig(*config);
}

TEST(CheckResumableTest, NamesTheFirstFieldThatMayNotChange) {
  const RunConfig before = *LoadConfig("", {"data.train=x"});
  const auto changed = [&](const std::string& override) {
    return std::string(
        CheckResumable(before, *LoadConfig("", {"data.train=x", override}), "runs/a").message());
  };
  EXPECT_EQ(
      changed("model.num_layers=6"),
      "model.num_layers was 4 in runs/a and is 6 now: give the same value, or another --run_dir");
  EXPECT_THAT(
      changed("data.train=y"),
      HasSubstr("data.train was [{ prefix: \"x\" weight: 1 }] in runs/a and is [{ prefix: \"y\" "));
  EXPECT_THAT(changed("data.train=x:2"), HasSubstr("and is [{ prefix: \"x\" weight: 2 }]"));
  EXPECT_THAT(changed("data.train=x,y"), HasSubstr("data.train was"));
  EXPECT_EQ(changed("data.train=x:1"), "");
  EXPECT_THAT(changed("model.sparse_layers=1"), HasSubstr("was [] in runs/a and is [1]"));
  EXPECT_THAT(changed("model.balance_loss.scope=row"),
              HasSubstr("was micro_batch in runs/a and is row"));
  EXPECT_EQ(changed("mesh.expert_parallel=2"), "");
  EXPECT_EQ(changed("checkpoint.every=7"), "");
  EXPECT_EQ(changed("model.num_layers=4"), "");
  EXPECT_TRUE(CheckResumable(RunConfig(), *LoadConfig("", {}), "runs/a").ok());
  RunConfig no_weight;
  no_weight.mutable_data()->add_train()->set_prefix("x");
  EXPECT_TRUE(CheckResumable(no_weight, before, "runs/a").ok());
}

TEST(ConfigFilesTest, TheConfigsOfTheRepositoryLoad) {
  for (const char* name : {"debug", "quickstart", "switch_tiny_hyper", "switch_tiny_moe"}) {
    const auto config =
        LoadConfig(std::string(HYPERMOE_SOURCE_DIR "/configs/") + name + ".textproto", {});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_TRUE(ValidateConfig(*config).ok()) << ValidateConfig(*config);
  }
}

}  // namespace
}  // namespace hypermoe
