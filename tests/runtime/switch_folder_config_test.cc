// config.json of Switch Transformers and T5.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "model/config_values.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_unsaid.h"
#include "tests/support/made_model_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

RunConfig Read(const json& config) {
  const auto read = ReadFolderConfig("config.json", config.dump());
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(RunConfig());
}

TEST(SwitchFolderConfigTest, AbsentKeysHaveTheDefaultsOfTheClasses) {
  const ModelConfig model =
      Read({{"model_type", "switch_transformers"}, {"decoder_start_token_id", 0}}).model();
  EXPECT_EQ(model.vocab_size(), 32128);
  EXPECT_EQ(model.hidden_size(), 768);
  EXPECT_EQ(model.head_size(), 64);
  EXPECT_EQ(model.ffn_size(), 2048);
  EXPECT_EQ(model.num_layers(), 12);
  EXPECT_EQ(model.num_decoder_layers(), 12);
  EXPECT_EQ(model.num_heads(), 12);
  EXPECT_EQ(model.num_experts(), 8);
  EXPECT_EQ(model.activation(), ModelConfig::relu);
  EXPECT_EQ(model.encoder_sparse_step(), 4);
  EXPECT_THAT(SparseLayers(model), ElementsAre(1, 5, 9, 13, 17, 21));
  EXPECT_EQ(model.training_capacity().mode(), CapacityConfig::fixed_per_row);
  EXPECT_EQ(model.training_capacity().tokens_per_row(), 64);
  EXPECT_EQ(model.evaluation_capacity().tokens_per_row(), 64);
  EXPECT_EQ(model.router_jitter(), 0.01);
  EXPECT_EQ(model.router_z_coefficient(), 0.001);
  EXPECT_EQ(model.balance_loss().coefficient(), 0.001);
  EXPECT_EQ(model.balance_loss().scope(), BalanceLossConfig::stack_row);
  EXPECT_TRUE(model.balance_loss().dropped_count_as_first());
  EXPECT_EQ(model.dropout(), 0.1);
  EXPECT_EQ(model.layer_norm_epsilon(), 1e-6);
  EXPECT_TRUE(model.tie_embeddings());
  EXPECT_EQ(model.pad_id(), 0);
  EXPECT_EQ(model.end_id(), 1);
  EXPECT_EQ(model.kind(), ModelConfig::moe);

  const ModelConfig t5 = Read({{"model_type", "t5"}, {"decoder_start_token_id", 0}}).model();
  EXPECT_EQ(t5.kind(), ModelConfig::dense);
  EXPECT_EQ(t5.hidden_size(), 512);
  EXPECT_EQ(t5.num_layers(), 6);
  EXPECT_EQ(t5.num_decoder_layers(), 6);
  EXPECT_EQ(t5.num_heads(), 8);
}

TEST(SwitchFolderConfigTest, StepsComeFromCountsUnlessTheyAreGiven) {
  struct Case {
    json changes;
    std::vector<int64_t> layers;
  };
  const std::vector<Case> cases = {
      {{{"num_layers", 6}, {"num_sparse_encoder_layers", 2}}, {1, 4, 7}},
      // None is the step of a whole stack, and so one.
      {{{"num_sparse_encoder_layers", 0}, {"num_layers", 4}}, {1, 5}},
      {{{"num_sparse_encoder_layers", 0}, {"num_layers", 1}}, {0, 2}},
      // More than there are blocks is a step of 0.
      {{{"num_sparse_encoder_layers", 3}}, {3}},
      {{{"encoder_sparse_step", 1}}, {0, 1, 3}},
      // What a step overrides is not looked at.
      {{{"encoder_sparse_step", 1}, {"num_sparse_encoder_layers", 1000}}, {0, 1, 3}},
      {{{"decoder_sparse_step", 2}, {"num_decoder_layers", 4}}, {1, 3, 5}},
      // As many decoder blocks as the encoder has.
      {{{"num_layers", 4}, {"num_decoder_layers", nullptr}, {"num_sparse_decoder_layers", 2}},
       {1, 5, 7}},
  };
  for (const Case& expected : cases) {
    json config = TinySwitch();
    for (const auto& [key, value] : expected.changes.items()) config[key] = value;
    EXPECT_EQ(SparseLayers(Read(config).model()), expected.layers) << expected.changes;
  }
}

TEST(SwitchFolderConfigTest, OnlyWhatHasChangedIsWrittenAnew) {
  const json source = TinySwitch({{"hypermoe", TinyHyper()}, {"dense_act_fn", "silu"}});
  RunConfig model = Read(source);
  EXPECT_EQ(model.model().activation(), ModelConfig::silu);
  EXPECT_EQ(FolderConfigText(model, source.dump(5), "float32").value(), source.dump(5));
  model.mutable_model()->set_num_experts(8);
  model.mutable_model()->mutable_evaluation_capacity()->set_tokens_per_row(7);
  json expected = source;
  expected["num_experts"] = 8;
  expected["expert_capacity"] = 7;
  EXPECT_EQ(json::parse(FolderConfigText(model, source.dump(), "float32").value()), expected);
}

// Rows are never so long.
TEST(SwitchFolderConfigTest, ACapacityThatIsNeverReachedIsAnyNumber) {
  const json source = TinySwitch({{"expert_capacity", 1 << 20}});
  const RunConfig config = Read(source);
  EXPECT_EQ(config.model().evaluation_capacity().tokens_per_row(), 65536);
  EXPECT_EQ(FolderConfigText(config, source.dump(), "float32").value(), source.dump());
}

TEST(SwitchFolderConfigTest, WhatIsLostIsKnown) {
  const json source = TinySwitch({{"hypermoe", TinyHyper()}, {"router_bias", true}});
  RunConfig config = Read(source);
  EXPECT_TRUE(config.model().router_bias());
  const auto unsaid = [&] {
    return UnsaidOptions(config, FolderConfigText(config, "", "float32").value());
  };
  EXPECT_THAT(unsaid(), ElementsAre());
  // Equal to what it says, or of no account.
  config.mutable_model()->set_sequence_length(9);
  config.mutable_model()->set_expert_dropout(0.1);
  config.mutable_hyper()->set_execution(HyperConfig::owner);
  EXPECT_THAT(unsaid(), ElementsAre());
  ModelConfig& model = *config.mutable_model();
  model.mutable_balance_loss()->set_scope(BalanceLossConfig::row);
  model.mutable_balance_loss()->set_dropped_count_as_first(false);
  model.mutable_training_capacity()->set_mode(CapacityConfig::none);
  model.set_expert_dropout(0.4);
  model.set_router_jitter_in_place(true);
  EXPECT_THAT(unsaid(),
              ElementsAre("model.balance_loss.scope (row, read as stack_row)",
                          "model.balance_loss.dropped_count_as_first (false, read as true)",
                          "model.expert_dropout (0.4, read as 0.1)",
                          "model.router_jitter_in_place (true, read as false)",
                          "model.training_capacity.mode (none, read as fixed_per_row)",
                          "model.training_capacity.tokens_per_row (64, read as 5)"));
}

TEST(SwitchFolderConfigTest, WhatTheFormatCannotSayIsNotWritten) {
  const auto text_with = [](const std::function<void(ModelConfig*)>& change) {
    RunConfig config = Read(TinySwitch());
    change(config.mutable_model());
    return FolderConfigText(config, "", "float32");
  };
  const auto two = text_with([](ModelConfig* model) { model->set_top_k(2); });
  EXPECT_EQ(ExitCodeOf(two.status()), ExitCode::kConfig);
  EXPECT_THAT(std::string(two.status().message()), HasSubstr("model.top_k is 2"));
  const auto factor = text_with([](ModelConfig* model) {
    model->mutable_evaluation_capacity()->set_mode(CapacityConfig::factor_per_group);
  });
  EXPECT_EQ(ExitCodeOf(factor.status()), ExitCode::kConfig);
  const auto unlimited = text_with([](ModelConfig* model) {
    model->mutable_evaluation_capacity()->set_mode(CapacityConfig::none);
  });
  EXPECT_EQ(json::parse(*unlimited)["expert_capacity"], 65536);
}

TEST(SwitchFolderConfigTest, WhatIsNotAsItMustBeIsRefused) {
  struct Case {
    json config;
    ExitCode code;
    std::string words;
  };
  const std::vector<Case> cases = {
      {TinySwitch({{"decoder_start_token_id", nullptr}}), ExitCode::kBadData,
       "'decoder_start_token_id' is missing"},
      {TinySwitch({{"decoder_start_token_id", 11}}), ExitCode::kBadData, "below 'vocab_size' (11)"},
      {TinySwitch({{"dense_act_fn", "gated-gelu"}}), ExitCode::kBadData, "'dense_act_fn' is"},
      {TinySwitch({{"d_kv", 0}}), ExitCode::kBadData, "'d_kv' is 0"},
      {TinySwitch({{"expert_capacity", 0}}), ExitCode::kBadData, "'expert_capacity' is 0"},
      {TinySwitch({{"num_sparse_encoder_layers", -1}}), ExitCode::kBadData,
       "'num_sparse_encoder_layers' is -1"},
      {TinySwitch({{"encoder_sparse_step", "2"}}), ExitCode::kBadData, "'encoder_sparse_step'"},
      {TinySwitch({{"num_experts", 2.5}}), ExitCode::kBadData, "'num_experts' is 2.5"},
      {TinySwitch({{"router_bias", 1}}), ExitCode::kBadData, "'router_bias' is 1"},
      {TinySwitch({{"relative_attention_num_buckets", 7}}), ExitCode::kConfig,
       "'relative_attention_num_buckets' is 7"},
      {TinySwitch({{"relative_attention_max_distance", 16}}), ExitCode::kBadData,
       "'relative_attention_max_distance' is 16"},
      {TinySwitch({{"num_selected_experts", 2}}), ExitCode::kConfig, "'num_selected_experts' is 2"},
      {TinySwitch({{"is_encoder_decoder", false}}), ExitCode::kConfig, "'is_encoder_decoder'"},
      {TinySwitch({{"encoder_sparse_step", 0}, {"decoder_sparse_step", 0}}), ExitCode::kConfig,
       "no block is sparse"},
      {TinySwitch({{"hypermoe", {{"condition", "weights"}}}}), ExitCode::kBadData,
       "'hypermoe.condition' is \"weights\", expected another one, or a model of width 720 to "
       "1439, "
       "inner width 1920 to 3839 and 'hypermoe.expert_embedding_dim' 128; they are 6, 10 and 128"},
      {TinyT5({{"feed_forward_proj", "gated-gelu"}}), ExitCode::kConfig, "'feed_forward_proj' is"},
      {TinyT5({{"is_gated_act", true}}), ExitCode::kConfig, "'is_gated_act' is true"},
      {TinyT5({{"tie_word_embeddings", false}}), ExitCode::kConfig, "'tie_word_embeddings'"},
      {TinyT5({{"model_type", "mt5"}}), ExitCode::kConfig, "\"t5\" are"},
  };
  for (const Case& bad : cases) {
    const auto read = ReadFolderConfig("config.json", bad.config.dump());
    EXPECT_EQ(ExitCodeOf(read.status()), bad.code) << bad.words << read.status();
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(bad.words));
  }
  // The library ignores these.
  for (const json& ignored : {json{{"feed_forward_proj", "gated-gelu"}, {"is_gated_act", true}},
                              json{{"router_type", "other"}, {"router_dtype", "bfloat16"}},
                              json{{"router_ignore_padding_tokens", true}}}) {
    EXPECT_TRUE(ReadFolderConfig("config.json", TinySwitch(ignored).dump()).ok()) << ignored;
  }
}

}  // namespace
}  // namespace hypermoe
