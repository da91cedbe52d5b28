// Model folders of Switch Transformers and T5: in, out again, and grown.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/config_values.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_growth.h"
#include "runtime/model_transfer.h"
#include "runtime/safetensors.h"
#include "runtime/verify.h"
#include "runtime/verify_report.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

const std::string kMoe = HYPERMOE_TEST_DATA "/switch_moe";
const std::string kHyper = HYPERMOE_TEST_DATA "/switch_hyper";

// What a file of T5's calls the tensors.
std::map<std::string, at::Tensor> AsT5(const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, at::Tensor> named;
  for (const auto& [name, tensor] : tensors)
    named[absl::StrReplaceAll(name, {{".mlp.", ".DenseReluDense."}})] = tensor;
  return named;
}

// Imports `from` and exports it again, in one file and in shards; both must be what came in.
void ExpectRoundTrip(const std::string& from) {
  const TemporaryFolder scratch;
  const auto world = NewSelfCommunicator("world");
  const auto imported = ImportModel({from, scratch / "run", {}, 1}, *world);
  ASSERT_TRUE(imported.ok()) << imported.status();
  for (const int64_t max_shard : {int64_t{5'000'000'000}, int64_t{1500}}) {
    const std::string output = scratch / absl::StrCat("out", max_shard);
    const absl::Status exported = ExportModel({scratch / "run", output, max_shard}, *world);
    ASSERT_TRUE(exported.ok()) << exported;
    ExpectSameFolders(output, from);
    const auto again = OpenModelFolder(output);
    EXPECT_TRUE(again.ok()) << again.status();
  }
}

RunConfig Read(const json& config) {
  const auto read = ReadFolderConfig("config.json", config.dump());
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(RunConfig());
}

TEST(SwitchFolderTest, FoldersOfHuggingFaceComeOutAsTheyWere) {
  ExpectRoundTrip(kMoe);
  ExpectRoundTrip(kHyper);
}

TEST(SwitchFolderTest, EveryKindAndDtypeComesOutAsItWas) {
  const TemporaryFolder scratch;
  const json stacks = TinyHyper({{"share", "stack"}, {"emb_scope", "stack"}, {"gen_bias", true}});
  const std::vector<json> configs = {
      TinySwitch({{"hypermoe", {{"kind", "moe_share"}}}}),
      TinySwitch({{"hypermoe", {{"kind", "adapter"}, {"bottleneck_dim", 3}}}}),
      TinySwitch({{"hypermoe", stacks}}),
      TinySwitch({{"encoder_sparse_step", 0}, {"router_bias", true}}),
      TinySwitch({{"hypermoe", TinyHyper({{"baked", true}})}})};
  const c10::ScalarType dtypes[] = {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble, at::kFloat};
  for (size_t i = 0; i < configs.size(); ++i) {
    SCOPED_TRACE(configs[i].dump());
    const std::string folder = scratch / absl::StrCat(i);
    WriteMadeFolder(folder, configs[i], MadeTensors(configs[i], dtypes[i]));
    ExpectRoundTrip(folder);
    const RunConfig read = OpenModelFolder(folder)->config;
    EXPECT_EQ(read.runtime().dtype(),
              dtypes[i] == at::kDouble ? RuntimeConfig::float64 : RuntimeConfig::float32);
    // A new config.json says the same.
    const json written = json::parse(FolderConfigText(read, "", "float32").value());
    RunConfig again = Read(written);
    again.mutable_runtime()->set_dtype(read.runtime().dtype());
    EXPECT_EQ(again.ShortDebugString(), read.ShortDebugString());
    for (const char* key : {"architectures", "is_encoder_decoder", "feed_forward_proj",
                            "router_bias", "router_dtype", "torch_dtype"})
      EXPECT_TRUE(written.contains(key)) << key;
  }
}

TEST(SwitchFolderTest, TensorsHaveTheNamesAndShapesOfTheFormat) {
  const auto tensors =
      MadeTensors(TinySwitch({{"hypermoe", TinyHyper({{"share", "stack"}})}}), at::kFloat);
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"shared.weight", {11, 6}},
      {"encoder.block.0.layer.0.SelfAttention.q.weight", {8, 6}},
      {"encoder.block.0.layer.0.SelfAttention.o.weight", {6, 8}},
      {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", {32, 2}},
      {"encoder.block.0.layer.1.mlp.wi.weight", {10, 6}},
      {"encoder.block.1.layer.1.mlp.router.classifier.weight", {4, 6}},
      {"encoder.block.1.layer.1.mlp.experts.expert_3.wo.weight", {6, 10}},
      {"decoder.block.2.layer.1.EncDecAttention.v.weight", {8, 6}},
      {"decoder.block.2.layer.2.layer_norm.weight", {6}},
      {"decoder.final_layer_norm.weight", {6}},
      {"hypermoe.expert_embedding.3.weight", {4, 3}},
      {"hypermoe.layer_embedding.weight", {5, 2}},
      {"hypermoe.generator.encoder.down.weight", {12, 7}},
      {"hypermoe.generator.decoder.up.bias", {12}}};
  for (const auto& [name, shape] : expected) {
    ASSERT_TRUE(tensors.contains(name)) << name;
    EXPECT_EQ(tensors.at(name).sizes().vec(), shape) << name;
  }
  // Embedding, 2 tables and final norms, attention with norms, sub-layers with norms, hypermoe.
  EXPECT_EQ(tensors.size(),
            1u + 2 + 2 + 2 * 5 + 3 * 10 + 5 + 3 * 2 + 2 * (1 + 4 * 2) + 2 * 5 + 1 + 2 * 6);
}

// A reader that knows Switch alone takes its own keys and tensors, and finds the plain model.
TEST(SwitchFolderTest, APlainReaderGetsTheModelWithoutTheHypernetwork) {
  const TemporaryFolder scratch;
  json config = json::parse(ReadFile(kHyper + "/config.json"));
  config.erase("hypermoe");
  std::map<std::string, at::Tensor> tensors;
  const auto file = *SafetensorsFile::Open(kHyper + "/model.safetensors");
  for (const std::string& name : file->names()) {
    if (!name.starts_with("hypermoe.")) tensors[name] = *file->Get(name);
  }
  WriteMadeFolder(scratch / "plain", config, tensors);
  const auto plain = OpenModelFolder(scratch / "plain");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->config.model().kind(), ModelConfig::moe);
  ExpectRoundTrip(scratch / "plain");
}

TEST(SwitchFolderTest, TiedTensorsAreTakenOnceAndMustBeEqual) {
  const TemporaryFolder scratch;
  auto tensors = MadeTensors(TinySwitch(), at::kFloat);
  WriteMadeFolder(scratch / "plain", TinySwitch(), tensors);
  for (const char* name :
       {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"})
    tensors[name] = tensors.at("shared.weight");
  WriteMadeFolder(scratch / "aliases", TinySwitch(), tensors);
  const auto world = NewSelfCommunicator("world");
  ASSERT_TRUE(ExportModel({scratch / "aliases", scratch / "out"}, *world).ok());
  ExpectSameFolders(scratch / "out", scratch / "plain");
  tensors["lm_head.weight"] = tensors.at("shared.weight") + 1;
  WriteMadeFolder(scratch / "unequal", TinySwitch(), tensors);
  const auto unequal = OpenModelFolder(scratch / "unequal");
  EXPECT_EQ(ExitCodeOf(unequal.status()), ExitCode::kBadData);
  EXPECT_THAT(std::string(unequal.status().message()),
              HasSubstr("'lm_head.weight' differs from 'shared.weight'"));
}

TEST(SwitchFolderTest, UntiedEmbeddingsAreWrittenForHuggingFaceToo) {
  const TemporaryFolder scratch;
  const json config = TinySwitch({{"tie_word_embeddings", false}});
  auto tensors = MadeTensors(config, at::kFloat);
  EXPECT_FALSE(tensors.contains("shared.weight"));
  const at::Tensor encoder = tensors.at("encoder.embed_tokens.weight");
  tensors["shared.weight"] = encoder;
  WriteMadeFolder(scratch / "whole", config, tensors);
  ExpectRoundTrip(scratch / "whole");
  // As Hugging Face saves it: what is shared stands for both.
  tensors.erase("encoder.embed_tokens.weight");
  tensors.erase("decoder.embed_tokens.weight");
  WriteMadeFolder(scratch / "saved", config, tensors);
  const auto world = NewSelfCommunicator("world");
  ASSERT_TRUE(ExportModel({scratch / "saved", scratch / "out"}, *world).ok());
  const auto written = TensorsOfFolder(scratch / "out");
  for (const char* name :
       {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"})
    EXPECT_TRUE(at::equal(written.at(name), encoder)) << name;
}

TEST(SwitchFolderTest, AllThatDoesNotFitIsListed) {
  const TemporaryFolder scratch;
  auto tensors = MadeTensors(TinySwitch(), at::kFloat);
  tensors.erase("encoder.block.1.layer.1.mlp.router.classifier.weight");
  tensors["decoder.block.3.layer.0.layer_norm.weight"] = tensors.at("shared.weight");
  at::Tensor& wi = tensors.at("decoder.block.1.layer.2.mlp.experts.expert_2.wi.weight");
  wi = wi.t().contiguous();
  WriteMadeFolder(scratch / "bad", TinySwitch(), tensors);
  const std::string message(OpenModelFolder(scratch / "bad").status().message());
  EXPECT_THAT(message, HasSubstr("encoder.block.1.layer.1.mlp.router.classifier.weight"));
  EXPECT_THAT(message, HasSubstr("decoder.block.3.layer.0.layer_norm.weight"));
  EXPECT_THAT(message, HasSubstr("[6,10], expected [10,6]"));
}

class DenseFolderTest : public testing::Test {
 protected:
  DenseFolderTest() {
    auto tensors = AsT5(RandomTensors(TinyT5(), at::kFloat));
    WriteMadeFolder(scratch_ / "t5", TinyT5(), tensors);
  }
  absl::StatusOr<GrowthReport> Grow(const std::string& from, const std::string& to,
                                    const std::vector<std::string>& changes) {
    GrowthOptions options;
    options.from = scratch_ / from;
    options.output = scratch_ / to;
    options.changes = changes;
    return GrowModel(options, NewSelfCommunicator("world"));
  }

  TemporaryFolder scratch_;
};

TEST_F(DenseFolderTest, ComesOutAsItWas) {
  ExpectRoundTrip(scratch_ / "t5");
  auto tensors = AsT5(MadeTensors(TinyT5(), at::kFloat));
  EXPECT_TRUE(tensors.contains("decoder.block.0.layer.2.DenseReluDense.wo.weight"));
  WriteMadeFolder(scratch_ / "plain", TinyT5(), tensors);
  // Old files hold a table that nothing uses.
  tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] =
      tensors.at("shared.weight");
  WriteMadeFolder(scratch_ / "old", TinyT5(), tensors);
  const auto world = NewSelfCommunicator("world");
  ASSERT_TRUE(ExportModel({scratch_ / "old", scratch_ / "out"}, *world).ok());
  ExpectSameFolders(scratch_ / "out", scratch_ / "plain");
}

TEST_F(DenseFolderTest, BecomesASwitchTransformerThatGrows) {
  const auto made =
      Grow("t5", "switch", {"model.kind=hyper", "model.num_experts=4", "hyper.bottleneck_dim=2"});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_LE(made->error, 1e-5 * made->largest_logit);
  const json config = json::parse(ReadFile(scratch_ / "switch/config.json"));
  EXPECT_EQ(config["model_type"], "switch_transformers");
  // Its own default would be another.
  EXPECT_EQ(config["d_model"], 6);
  EXPECT_EQ(config["dense_act_fn"], "relu");
  const auto opened = OpenModelFolder(scratch_ / "switch");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(SparseLayers(opened->config.model()), (std::vector<int64_t>{1, 3}));
  EXPECT_FALSE(opened->config.model().renormalize());

  const auto grown = Grow("switch", "grown", {"model.num_experts=12"});
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_LE(grown->error, 1e-5 * grown->largest_logit);
  const auto before = TensorsOfFolder(scratch_ / "switch"),
             after = TensorsOfFolder(scratch_ / "grown");
  const std::string mlp = "encoder.block.1.layer.1.mlp.";
  EXPECT_EQ(after.at(mlp + "router.classifier.weight").sizes().vec(),
            (std::vector<int64_t>{12, 6}));
  EXPECT_TRUE(at::equal(after.at(mlp + "experts.expert_9.wi.weight"),
                        before.at(mlp + "experts.expert_1.wi.weight")));
  EXPECT_TRUE(at::equal(after.at(mlp + "experts.expert_9.wo.weight"),
                        before.at(mlp + "experts.expert_1.wo.weight") * 3));
}

// Clones have their expert's bias, new routers none.
TEST_F(DenseFolderTest, RoutersMayHaveABias) {
  const json config = TinySwitch({{"router_bias", true}, {"expert_capacity", 100}});
  const auto before = RandomTensors(config, at::kFloat);
  WriteMadeFolder(scratch_ / "biased", config, before);
  const auto grown = Grow("biased", "grown", {"model.num_experts=12"});
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_LE(grown->error, 1e-5 * grown->largest_logit);
  const std::string bias = "decoder.block.1.layer.2.mlp.router.classifier.bias";
  EXPECT_TRUE(at::equal(TensorsOfFolder(scratch_ / "grown").at(bias), before.at(bias).repeat({3})));
  const auto made =
      Grow("t5", "switch", {"model.kind=moe", "model.num_experts=4", "model.router_bias=true"});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(TensorsOfFolder(scratch_ / "switch")
                .at("encoder.block.1.layer.1.mlp.router.classifier.bias")
                .abs()
                .sum()
                .item<double>(),
            0);
  EXPECT_EQ(
      ExitCodeOf(
          Grow("biased", "other", {"model.num_experts=8", "model.router_bias=false"}).status()),
      ExitCode::kConfig);
}

// HyperExperts in place of the hypernetwork, which then has no gradients.
TEST(SwitchVerifyTest, ABakedModelComputesTheSame) {
  const TemporaryFolder scratch;
  const auto world = NewSelfCommunicator("world");
  ExportOptions bake = {kHyper, scratch / "baked"};
  bake.bake = true;
  const absl::Status baked = ExportModel(bake, *world);
  ASSERT_TRUE(baked.ok()) << baked;
  const auto golden = *SafetensorsFile::Open(kHyper + "/golden.safetensors");
  std::vector<NamedTensor> outputs;
  for (const std::string& name : golden->names()) {
    if (!name.starts_with("grad.")) outputs.push_back({name, *golden->Get(name)});
  }
  VerifyOptions options;
  options.model = scratch / "baked";
  options.golden = scratch / "outputs.safetensors";
  options.dtype = "float64";
  ASSERT_TRUE(WriteSafetensors(options.golden, outputs, golden->metadata()).ok());
  const auto result = Verify(options, NewSelfCommunicator("world"), 1);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(VerifyStatus(*result).ok()) << VerifyTable(*result);
}

// The same numbers in float32 from the unmodified library.
TEST(SwitchVerifyTest, TheLibraryInFloat32IsMet) {
  VerifyOptions options;
  options.model = kMoe;
  options.golden = kMoe + "/golden_float32.safetensors";
  options.dtype = "float64";
  options.tolerance = 1e-4;
  const auto result = Verify(options, NewSelfCommunicator("world"), 1);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(VerifyStatus(*result).ok()) << VerifyTable(*result);
}

}  // namespace
}  // namespace hypermoe
