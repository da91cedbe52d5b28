// Which dropout acts where.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <string>

#include "model/gpt2.h"

namespace hypermoe {
namespace {

// A dense block; only what `set` says is dropped.
class OneBlock {
 public:
  explicit OneBlock(void (*set)(ModelConfig&))
      : model_(Config(set), HyperConfig(), 1, {at::kDouble, at::kDouble}, nullptr) {
    batch_.input_ids_BS = at::arange(12).view({2, 6}).remainder(8);
    batch_.row_ids_B = at::arange(2);
  }

  // Whether training computes something else than evaluation.
  bool Acts() {
    const at::NoGradGuard no_grad;
    ForwardMode training;
    training.training = true;
    training.key = RandomKey{1, 0};
    return !model_.Forward(batch_, training).logits_TV.equal(model_.Forward(batch_, {}).logits_TV);
  }

  // Leaves a sub-layer without effect on the residual stream.
  OneBlock& Silence(const std::string& projection) {
    for (Parameter& parameter : model_.parameters()) {
      if (parameter.name.starts_with(projection)) parameter.value.detach().zero_();
    }
    return *this;
  }

 private:
  static ModelConfig Config(void (*set)(ModelConfig&)) {
    ModelConfig config;
    config.set_kind(ModelConfig::dense);
    config.set_vocab_size(8);
    config.set_sequence_length(6);
    config.set_num_layers(1);
    config.set_hidden_size(16);
    config.set_num_heads(2);
    config.set_ffn_size(32);
    config.set_init_std(0.5);
    config.set_dropout(0);
    set(config);
    return config;
  }

  Gpt2 model_;
  Batch batch_;
};

const char* const kAttention = "h.0.attn.c_proj.";
const char* const kFeedForward = "h.0.mlp.c_proj.";

TEST(Gpt2DropoutTest, NoneWithoutProbability) {
  EXPECT_FALSE(OneBlock([](ModelConfig&) {}).Acts());
}

TEST(Gpt2DropoutTest, EmbeddingDropoutActsBeforeTheBlocks) {
  const auto set = [](ModelConfig& config) { config.set_embedding_dropout(0.5); };
  EXPECT_TRUE(OneBlock(set).Silence(kAttention).Silence(kFeedForward).Acts());
}

TEST(Gpt2DropoutTest, AttentionDropoutActsInAttentionAlone) {
  const auto set = [](ModelConfig& config) { config.set_attention_dropout(0.5); };
  EXPECT_TRUE(OneBlock(set).Silence(kFeedForward).Acts());
  EXPECT_FALSE(OneBlock(set).Silence(kAttention).Acts());
}

// With the other two switched off, dropout is that of what sub-layers add to the stream.
TEST(Gpt2DropoutTest, DropoutActsOnBothSubLayers) {
  const auto set = [](ModelConfig& config) {
    config.set_dropout(0.5);
    config.set_embedding_dropout(0);
    config.set_attention_dropout(0);
  };
  EXPECT_TRUE(OneBlock(set).Silence(kFeedForward).Acts());
  EXPECT_TRUE(OneBlock(set).Silence(kAttention).Acts());
  EXPECT_FALSE(OneBlock(set).Silence(kAttention).Silence(kFeedForward).Acts());
}

// Unless they are given, the other two are as dropout.
TEST(Gpt2DropoutTest, DropoutStandsForTheOthers) {
  const auto set = [](ModelConfig& config) { config.set_dropout(0.5); };
  EXPECT_TRUE(OneBlock(set).Silence(kAttention).Silence(kFeedForward).Acts());
}

}  // namespace
}  // namespace hypermoe
