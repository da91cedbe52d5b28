#include "runtime/model_cost.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/config_loader.h"
#include "runtime/trainer.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

RunConfig Config(const std::vector<std::string>& overrides) {
  const auto config = LoadConfig("", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

// Numbers small enough to count on paper: width 8, inner width 12, 4 positions, 10 ids, 3 blocks,
// bottleneck 2; embeddings of experts 3, of selections 6, of layers 2, MLP 5, q 7.
RunConfig SmallConfig(std::vector<std::string> overrides) {
  std::vector<std::string> all = {"model.hidden_size=8",         "model.num_heads=2",
                                  "model.ffn_size=12",           "model.sequence_length=4",
                                  "model.vocab_size=10",         "model.num_layers=3",
                                  "hyper.bottleneck_dim=2",      "hyper.expert_embedding_dim=3",
                                  "hyper.mlp_hidden_dim=5",      "hyper.selection_embedding_dim=6",
                                  "hyper.layer_embedding_dim=2", "hyper.hidden_dim=7",
                                  "train.batch_size=4"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return Config(all);
}

// Forward, a token. Attention: 2*8*24 to q, k, v; 2*8*8 out of it; 4 * 8 for each key and value,
// (1 + 2 + 3 + 4) / 4 = 2.5 of them in the mean.
constexpr int64_t kAttention = 384 + 128 + 80;
constexpr int64_t kFfn = 2 * 8 * 12 + 2 * 12 * 8;
constexpr int64_t kLowRank = 2 * 8 * 2 + 2 * 2 * 8;
constexpr int64_t kHead = 2 * 8 * 10;
constexpr int64_t kDense = 3 * (kAttention + kFfn) + kHead;

struct FlopsCase {
  std::vector<std::string> overrides;
  int64_t forward;     // a token
  int64_t experts;     // part of it
  int64_t generation;  // a step
};

TEST(CountFlopsTest, EqualsCountsByHand) {
  ASSERT_EQ(kDense, 3088);
  const std::vector<FlopsCase> cases = {
      {{"model.kind=dense"}, 3088, 0, 0},
      // A router costs 2 * 8 an expert.
      {{"model.kind=moe", "model.num_experts=8"}, 3088 + 3 * 128, 3 * 384, 0},
      {{"model.kind=moe", "model.num_experts=16"}, 3088 + 3 * 256, 3 * 384, 0},
      {{"model.kind=moe", "model.num_experts=32", "model.sparse_layers=1"}, 3088 + 512, 384, 0},
      {{"model.kind=moe", "model.num_experts=64"}, 3088 + 3 * 1024, 3 * 384, 0},
      {{"model.kind=moe_share", "model.num_experts=8"}, 3088 + 3 * (128 + 384), 3 * 384, 0},
      {{"model.kind=moe_share", "model.num_experts=16", "model.sparse_layers=0,2"},
       3088 + 2 * (256 + 384),
       2 * 384,
       0},
      {{"model.kind=adapter", "model.num_experts=8"}, 3088 + 3 * (128 + 64), 3 * 384, 0},
      // An expert of a layer, multiply-adds: mean 8*3, MLP 3*5 + 5*6, k (6+2)*7, matrices 2*7*16.
      {{"model.kind=hyper", "model.num_experts=8"},
       3088 + 3 * (128 + 64),
       3 * 384,
       3 * 8 * 2 * (24 + 15 + 30 + 56 + 224)},
      {{"model.kind=hyper", "model.num_experts=64", "train.batch_size=16",
        "model.sparse_layers=0,2"},
       3088 + 2 * (1024 + 64),
       2 * 384,
       2 * 64 * 2 * (192 + 15 + 30 + 56 + 224)},
      // Sixteen tokens cannot have selected more of the 64 experts.
      {{"model.kind=hyper", "model.num_experts=64", "model.sparse_layers=0,2"},
       3088 + 2 * (1024 + 64),
       2 * 384,
       2 * 16 * 2 * (192 + 15 + 30 + 56 + 224)},
      // Two choices of 8: noise has a matrix of its own; 16 of 28 selections; biases 7 * (2 + 8).
      {{"model.kind=hyper", "model.num_experts=8", "model.top_k=2", "model.router=noisy_topk",
        "hyper.gen_bias=true"},
       3088 + 3 * (384 + 256 + 64),
       2 * 3 * 384,
       3 * 16 * 2 * (24 + 15 + 30 + 56 + 224 + 70)},
      // Every token generates: k (8+2)*7, matrices.
      {{"model.kind=hyper", "model.num_experts=8", "hyper.condition=hidden"},
       3088 + 3 * (128 + 64 + 2 * (70 + 224)),
       3 * 384,
       0},
      // Model FLOPs: what the slow reference and recomputation do more is not counted.
      {{"model.kind=hyper", "model.num_experts=8", "hyper.execution=per_token",
        "train.recompute=blocks"},
       3088 + 3 * (128 + 64),
       3 * 384,
       16752},
  };
  for (const FlopsCase& expected : cases) {
    const ModelFlops flops = *CountFlops(SmallConfig(expected.overrides));
    const std::string name = expected.overrides[0] + " " + expected.overrides.back();
    EXPECT_EQ(flops.forward_per_token, expected.forward) << name;
    EXPECT_EQ(flops.experts_per_token, expected.experts) << name;
    EXPECT_EQ(flops.generation_per_step, expected.generation) << name;
  }
}

// A row: 4 tokens to the encoder's 3 blocks, 3 labels to the decoder's 2.
RunConfig SmallSwitch(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"model.family=switch_transformers", "model.num_decoder_layers=2"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return SmallConfig(all);
}

// Encoder: 4 tokens of 8*8*8 in and out of attention, 4*8 for each of 4 keys, and the network.
// Decoder: 3 tokens of the same with (1+2+3)/3 = 2 keys in the mean; 4*8*8 for queries and results
// of the second attention, 4*8 for each of 4 keys, and the network; 4*8*8 for keys and values of
// each of 4 tokens.
constexpr int64_t kEncoderBlock = 4 * (512 + 128 + 384),
                  kDecoderBlock = 3 * (512 + 64 + 256 + 128 + 384) + 4 * 256;
constexpr int64_t kSwitchRow = 3 * kEncoderBlock + 2 * kDecoderBlock + 3 * 160;

TEST(CountFlopsTest, OfASwitchTransformerEqualsCountsByHand) {
  ASSERT_EQ(kSwitchRow, 22880);
  const std::vector<FlopsCase> cases = {
      {{"model.kind=dense"}, 22880 / 4, 0, 0},
      // One block of each stack is sparse.
      {{"model.kind=moe", "model.num_experts=8"},
       (22880 + (4 + 3) * 128) / 4,
       (4 + 3) * 384 / 4,
       0},
      {{"model.kind=moe_share", "model.num_experts=16", "model.router_bias=true"},
       (22880 + (4 + 3) * (256 + 384)) / 4,
       (4 + 3) * 384 / 4,
       0},
      // Three blocks and one; 8 selections, of which 2 rows have 6 labels for at most 6.
      {{"model.kind=hyper", "model.num_experts=8", "model.encoder_sparse_step=1",
        "train.batch_size=2"},
       (22880 + (3 * 4 + 3) * (128 + 64)) / 4,
       (3 * 4 + 3) * 384 / 4,
       (3 * 8 + 6) * 2 * (24 + 15 + 30 + 56 + 224)},
      // Heads of 3: 6 in place of 8 columns.
      {{"model.kind=dense", "model.head_size=3"},
       (3 * 4 * (384 + 96 + 384) + 2 * (3 * (384 + 48 + 192 + 96 + 384) + 4 * 192) + 480) / 4,
       0,
       0},
      // Every token generates.
      {{"model.kind=hyper", "model.num_experts=8", "hyper.condition=hidden"},
       (22880 + (4 + 3) * (128 + 64 + 2 * (70 + 224))) / 4,
       (4 + 3) * 384 / 4,
       0},
  };
  for (const FlopsCase& expected : cases) {
    const ModelFlops flops = *CountFlops(SmallSwitch(expected.overrides));
    const std::string name = expected.overrides[0] + " " + expected.overrides.back();
    EXPECT_EQ(flops.forward_per_token, expected.forward) << name;
    EXPECT_EQ(flops.experts_per_token, expected.experts) << name;
    EXPECT_EQ(flops.generation_per_step, expected.generation) << name;
  }
}

// 512 tokens to the encoder, 114 labels.
TEST(CountFlopsTest, OfSwitchBase) {
  const ModelFlops flops = *CountFlops(
      Config({"model.family=switch_transformers", "model.kind=moe", "model.hidden_size=768",
              "model.num_heads=12", "model.ffn_size=3072", "model.sequence_length=512",
              "model.num_layers=12", "model.num_decoder_layers=12", "model.vocab_size=32128"}));
  const int64_t around = 8 * 768 * 768, network = 4 * 768 * 3072, router = 2 * 768 * 8;
  const int64_t encoder = 12 * (around + 4 * 768 * 512 + network) + 6 * router;
  const int64_t decoder =
      12 * (around + 2 * 768 * 115 + around / 2 + 4 * 768 * 512 + network) + 6 * router;
  const int64_t head = 2 * 768 * 32128;
  EXPECT_EQ(flops.forward_per_token,
            (512 * encoder + 114 * (decoder + head) + 12 * 512 * around / 2) / 512);
  EXPECT_EQ(flops.experts_per_token, 6 * (512 + 114) * network / 512);
}

TEST(CountFlopsTest, RowsOfATaskHaveNoOneLength) {
  EXPECT_FALSE(CountFlops(SmallConfig({"data.task=rte"})).has_value());
}

TEST(CountFlopsTest, TrainingIsThreeForwardsAndGenerationOnceAStep) {
  const ModelFlops flops = *CountFlops(SmallConfig({"model.kind=hyper", "model.num_experts=8"}));
  EXPECT_EQ(flops.TrainingPerToken(16), 3 * 3664 + 3 * 16752 / 16);
  EXPECT_EQ(flops.TrainingPerToken(16752), 3 * 3664 + 3);
  // A quarter of the tokens lost their experts, in all of 3 sparse layers.
  EXPECT_EQ(flops.TrainingPerToken(16, 0.25), 3 * (3664 - 3 * 384 / 4) + 3 * 16752 / 16);
}

// Two sparse layers of 8 experts: 384 * 144 tiles of 25 in two channels, times 2 and 32; 8 * 8 of 9
// in 32 channels, times 32 and 128. Without tokens that share HyperExperts too.
TEST(CountFlopsTest, EncodesAllExpertsOnceAStep) {
  const std::vector<std::string> sizes = {
      "model.kind=hyper",    "model.hidden_size=768",   "model.num_heads=12",
      "model.ffn_size=3072", "model.sparse_layers=1,2", "hyper.expert_embedding_dim=128"};
  constexpr int64_t kExpert = 384 * 144 * (2 * 25 + 2 * 32) + 64 * (9 * 32 + 32 * 128);
  for (const char* z : {"hyper.z=binary", "hyper.z=one_minus_prob"}) {
    std::vector<std::string> learned = sizes, encoded = sizes;
    learned.push_back(z);
    encoded.insert(encoded.end(), {z, "hyper.condition=weights"});
    const ModelFlops of_learned = *CountFlops(SmallConfig(learned)),
                     of_encoded = *CountFlops(SmallConfig(encoded));
    EXPECT_EQ(of_encoded.forward_per_token, of_learned.forward_per_token);
    EXPECT_EQ(of_encoded.generation_per_step, of_learned.generation_per_step + 2 * 2 * 8 * kExpert);
  }
}

// 2 * 768 * (2304 + 768) + 1536 * 1025 and 4 * 768 * 3072 in each of 12 blocks, 2 * 768 * 50257.
TEST(CountFlopsTest, OfGpt2Small) {
  const ModelFlops flops = *CountFlops(Config(
      {"model.kind=dense", "model.hidden_size=768", "model.num_heads=12", "model.ffn_size=3072",
       "model.sequence_length=1024", "model.num_layers=12", "model.vocab_size=50257"}));
  EXPECT_EQ(flops.forward_per_token, 12 * (4718592 + 1574400 + 9437184) + 77194752);
}

TEST(FlopsUtilisationTest, IsTheShareOfThePeakOfAllRanksAndUnknownWithoutOne) {
  RunConfig config = SmallConfig({"model.kind=dense"});
  EXPECT_EQ(FlopsUtilisation(config, 1e6, 2, 0), std::nullopt);
  config.mutable_runtime()->set_peak_teraflops(0.5);
  EXPECT_DOUBLE_EQ(*FlopsUtilisation(config, 1e6, 2, 0), 1e6 * 3 * 3088 / (2 * 0.5e12));
  RunConfig encoder = SmallSwitch({"model.kind=dense"});
  encoder.mutable_runtime()->set_peak_teraflops(0.5);
  EXPECT_DOUBLE_EQ(*FlopsUtilisation(encoder, 1e6, 2, 0), 1e6 * 3 * 5720 / (2 * 0.5e12));
}

// What stands in the model that is built, by group, at one rank.
ParameterCounts CountBuilt(const RunConfig& config) {
  ParameterCounts counts;
  for (const Parameter& parameter : MakeModel(config, OneRankMesh())->parameters()) {
    (parameter.group == ParameterGroup::kDense   ? counts.dense
     : parameter.group == ParameterGroup::kHyper ? counts.hyper
                                                 : counts.experts) += parameter.value.numel();
  }
  return counts;
}

TEST(CountParametersTest, EqualsWhatIsBuilt) {
  for (const char* kind : {"dense", "moe", "moe_share", "adapter", "hyper"}) {
    for (const char* shape :
         {"model.num_experts=8", "model.num_experts=1", "model.num_experts=5"}) {
      for (const char* layers : {"model.sparse_layers=", "model.sparse_layers=1,2"}) {
        if (std::string(kind) == "dense" && std::string(layers) != "model.sparse_layers=") continue;
        const RunConfig config = SmallConfig({std::string("model.kind=") + kind, shape, layers});
        const ParameterCounts built = CountBuilt(config), counted = CountParameters(config);
        const std::string name = std::string(kind) + " " + shape + " " + layers;
        EXPECT_EQ(counted.dense, built.dense) << name;
        EXPECT_EQ(counted.hyper, built.hyper) << name;
        EXPECT_EQ(counted.experts, built.experts) << name;
        EXPECT_EQ(counted.total(), built.total()) << name;
      }
    }
  }
}

TEST(CountParametersTest, EqualsWhatIsBuiltUnderEveryOption) {
  for (const char* option :
       {"model.router=noisy_topk", "hyper.condition=hidden", "hyper.condition=selected",
        "hyper.emb_scope=model", "hyper.emb_scope=stack", "hyper.sel_mlp_scope=stack",
        "hyper.share=layer", "hyper.share=stack", "hyper.lin_bias=false", "hyper.gen_bias=true",
        "hyper.k_norm=layernorm", "hyper.scale=learned"}) {
    const RunConfig config = SmallConfig({"model.kind=hyper", "model.sparse_layers=1,2", option});
    const ParameterCounts built = CountBuilt(config), counted = CountParameters(config);
    EXPECT_EQ(counted.dense, built.dense) << option;
    EXPECT_EQ(counted.hyper, built.hyper) << option;
    EXPECT_EQ(counted.experts, built.experts) << option;
  }
}

TEST(CountParametersTest, TheNetworkOfWeightsStandsInPlaceOfEmbeddings) {
  const std::vector<std::string> sizes = {
      "model.kind=hyper",      "model.hidden_size=720",  "model.num_heads=2",
      "model.ffn_size=1920",   "model.num_experts=2",    "model.sparse_layers=1,2",
      "hyper.emb_scope=layer", "hyper.bottleneck_dim=2", "hyper.expert_embedding_dim=128"};
  std::vector<std::string> encoded = sizes;
  encoded.push_back("hyper.condition=weights");
  const RunConfig config = SmallConfig(encoded);
  EXPECT_EQ(CountParameters(config).hyper,
            CountParameters(SmallConfig(sizes)).hyper - 2 * 2 * 128 + 4692);
  EXPECT_EQ(CountParameters(config).hyper, CountBuilt(config).hyper);
}

TEST(CountParametersTest, EqualsWhatIsBuiltOfASwitchTransformer) {
  for (const char* kind : {"dense", "moe", "moe_share", "adapter", "hyper"}) {
    for (const char* option :
         {"model.tie_embeddings=true", "model.tie_embeddings=false", "model.head_size=3",
          "model.encoder_sparse_step=1", "hyper.share=stack", "hyper.emb_scope=stack",
          "model.router_bias=true"}) {
      const RunConfig config =
          SmallConfig({"model.family=switch_transformers", "model.num_decoder_layers=2",
                       std::string("model.kind=") + kind, option});
      const ParameterCounts built = CountBuilt(config), counted = CountParameters(config);
      EXPECT_EQ(counted.dense, built.dense) << kind << option;
      EXPECT_EQ(counted.hyper, built.hyper) << kind << option;
      EXPECT_EQ(counted.experts, built.experts) << kind << option;
    }
  }
}

// Google's switch-base-8 and -256, and what a token passes of them.
TEST(CountParametersTest, OfSwitchBase) {
  std::vector<std::string> shape = {"model.family=switch_transformers",
                                    "model.kind=moe",
                                    "model.hidden_size=768",
                                    "model.num_heads=12",
                                    "model.ffn_size=3072",
                                    "model.num_layers=12",
                                    "model.num_decoder_layers=12",
                                    "model.vocab_size=32128",
                                    "model.num_experts=8"};
  EXPECT_EQ(CountParameters(Config(shape)).total(), 619339008);
  shape.back() = "model.num_experts=256";
  EXPECT_EQ(CountParameters(Config(shape)).total(), 14664154368);
}

TEST(CountParametersTest, ActiveIsDenseOneExpertALayerAndTheGeneratedMatrices) {
  // An expert: 8 * 12 + 12 + 12 * 8 + 8.
  const ParameterCounts moe = CountParameters(SmallConfig({"model.kind=moe"}));
  EXPECT_EQ(moe.active, moe.dense + 3 * 212);
  const ParameterCounts share = CountParameters(SmallConfig({"model.kind=moe_share"}));
  EXPECT_EQ(share.active, moe.active + 3 * 212);
  const ParameterCounts hyper = CountParameters(SmallConfig({"model.kind=hyper"}));
  EXPECT_EQ(hyper.active, moe.active + 3 * 2 * 8 * 2);
  const ParameterCounts two =
      CountParameters(SmallConfig({"model.kind=hyper", "model.top_k=2", "hyper.gen_bias=true"}));
  EXPECT_EQ(two.active, moe.active + 3 * (212 + 2 * 8 * 2 + 8 + 2));
  const ParameterCounts dense = CountParameters(SmallConfig({"model.kind=dense"}));
  EXPECT_EQ(dense.active, dense.total());
  // Idle experts add to a token's network only their columns of the router.
  const ParameterCounts more =
      CountParameters(SmallConfig({"model.kind=moe", "model.num_experts=64"}));
  EXPECT_EQ(more.active, moe.active + 3 * 8 * 56);
}

// Hugging Face's gpt2; and with 8 experts in every block.
TEST(CountParametersTest, OfGpt2Small) {
  std::vector<std::string> shape = {"model.hidden_size=768", "model.num_heads=12",
                                    "model.ffn_size=3072",   "model.sequence_length=1024",
                                    "model.num_layers=12",   "model.vocab_size=50257",
                                    "model.kind=dense"};
  EXPECT_EQ(CountParameters(Config(shape)).total(), 124439808);
  shape.back() = "model.kind=moe";
  EXPECT_EQ(CountParameters(Config(shape)).total(), 124439808 + 12 * (7 * 4722432 + 768 * 8));
}

}  // namespace
}  // namespace hypermoe
