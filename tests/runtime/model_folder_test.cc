// Model folders in and out again.
#include "runtime/model_folder.h"

#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "runtime/config_fields.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_writer.h"
#include "runtime/model_transfer.h"
#include "runtime/safetensors.h"
#include "runtime/stored_model.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr char kOracle[] = HYPERMOE_SOURCE_DIR "/../shared/data/oracle/gpt2";

// Imports `from` and exports it again, in one file and in shards; both must be what came in.
void ExpectRoundTrip(const std::string& from) {
  const TemporaryFolder scratch;
  const auto world = NewSelfCommunicator("world");
  const auto imported = ImportModel({from, scratch / "run", {}, 1}, *world);
  ASSERT_TRUE(imported.ok()) << imported.status();
  for (const int64_t max_shard : {int64_t{5'000'000'000}, int64_t{1500}}) {
    const std::string output = scratch / ("out" + std::to_string(max_shard));
    const absl::Status exported = ExportModel({scratch / "run", output, max_shard}, *world);
    ASSERT_TRUE(exported.ok()) << exported;
    ExpectSameFolders(output, from);
    EXPECT_EQ(fs::exists(output + "/model.safetensors"), max_shard > 1500);
    const auto again = OpenModelFolder(output);
    EXPECT_TRUE(again.ok()) << again.status();
  }
}

TEST(ModelFolderTest, FoldersOfAnotherImplementationComeOutAsTheyWere) {
  if (!fs::is_directory(kOracle)) GTEST_SKIP() << kOracle << " is not there";
  for (const auto& entry : fs::directory_iterator(kOracle)) {
    SCOPED_TRACE(entry.path());
    ExpectRoundTrip(entry.path().string());
    const auto folder = OpenModelFolder(entry.path().string());
    EXPECT_EQ(folder->config.model().activation(), ModelConfig::gelu_new);
    EXPECT_EQ(folder->config.model().dropout(), 0.1);
    EXPECT_EQ(folder->config.model().attention_dropout(), -1);
  }
}

std::vector<json> ConfigsOfEveryOption() {
  const json moe = TinyMoe();
  std::vector<json> configs = {
      TinyConfig(),
      TinyConfig(moe),
      TinyConfig(TinyMoe({{"router", "noisy_topk"},
                          {"top_k", 3},
                          {"renormalize", true},
                          {"capacity", {{"mode", "fixed_per_row"}, {"value", 4}}}})),
      TinyConfig(TinyMoe({{"capacity", {{"mode", "factor_per_group"}, {"value", 1.5}}},
                          {"losses", {{"importance_cv2", 0.5}, {"router_z", 1}}}})),
      TinyConfig(moe, json::object({{"kind", "moe"}, {"condition", "nonsense"}})),
      TinyConfig(moe, json::object({{"kind", "moe_share"}})),
      TinyConfig(moe, json::object({{"kind", "adapter"}, {"bottleneck_dim", 3}})),
      TinyConfig(moe, TinyHyper({{"condition", "hidden"}, {"z", "one_minus_prob"}})),
      TinyConfig(moe, TinyHyper({{"baked", true}, {"gen_bias", true}, {"scale", "learned"}})),
  };
  // One option at a time, away from its default.
  const std::vector<json> changes = {{{"condition", "selected"}},  {{"agg", "sum"}},
                                     {{"emb_scope", "stack"}},     {{"emb_scope", "model"}},
                                     {{"sel_mlp_scope", "stack"}}, {{"sel_mlp_scope", "model"}},
                                     {{"share", "stack"}},         {{"share", "layer"}},
                                     {{"lin_bias", false}},        {{"gen_bias", true}},
                                     {{"k_act", "none"}},          {{"k_norm", "layernorm"}},
                                     {{"scale", "gate"}},          {{"scale", "learned"}},
                                     {{"on_dropped", "skip"}},     {{"z", "one_minus_prob"}}};
  for (const json& change : changes) configs.push_back(TinyConfig(moe, TinyHyper(change)));
  return configs;
}

TEST(ModelFolderTest, EveryOptionAndDtypeComesOutAsItWas) {
  const TemporaryFolder scratch;
  int count = 0;
  for (const json& config : ConfigsOfEveryOption()) {
    for (const c10::ScalarType dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
      // All dtypes with one configuration are enough.
      if (dtype != at::kFloat && count > 3) continue;
      SCOPED_TRACE(config.dump());
      const std::string folder = scratch / std::to_string(count++);
      WriteMadeFolder(folder, config, MadeTensors(config, dtype));
      ExpectRoundTrip(folder);
      const auto opened = OpenModelFolder(folder);
      ASSERT_TRUE(opened.ok()) << opened.status();
      EXPECT_EQ(opened->config.runtime().dtype(),
                dtype == at::kDouble ? RuntimeConfig::float64 : RuntimeConfig::float32);
    }
  }
}

TEST(ModelFolderTest, BitsThatAreNoNumbersAndMixedDtypesStay) {
  const TemporaryFolder scratch;
  auto tensors = MadeTensors(TinyConfig(), at::kFloat);
  tensors["ln_f.weight"][0] = std::numeric_limits<float>::quiet_NaN();
  tensors["ln_f.weight"][1] = -0.0f;
  tensors["h.1.ln_1.bias"] = tensors["h.1.ln_1.bias"].to(at::kBFloat16);
  WriteMadeFolder(scratch / "in", TinyConfig(), tensors);
  ExpectRoundTrip(scratch / "in");
}

// Names and shapes as the format writes them, not as this program does.
TEST(ModelFolderTest, TensorsHaveTheNamesAndShapesOfTheFormat) {
  const json config =
      TinyConfig(TinyMoe({{"router", "noisy_topk"}}), TinyHyper({{"gen_bias", true},
                                                                 {"k_norm", "layernorm"},
                                                                 {"scale", "learned"},
                                                                 {"emb_scope", "model"},
                                                                 {"sel_mlp_scope", "stack"},
                                                                 {"share", "layer"}}));
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& [name, tensor] : MadeTensors(config, at::kFloat))
    shapes[name] = tensor.sizes().vec();
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"wte.weight", {11, 6}},
      {"wpe.weight", {8, 6}},
      {"h.1.mlp.c_fc.weight", {6, 10}},
      {"h.1.mlp.c_proj.weight", {10, 6}},
      {"h.0.attn.c_attn.weight", {6, 18}},
      {"h.2.mlp.router.w_gate", {6, 5}},
      {"h.2.mlp.router.w_noise", {6, 5}},
      {"h.2.mlp.experts.expert_4.c_fc.weight", {6, 10}},
      {"h.2.mlp.experts.expert_4.c_fc.bias", {10}},
      {"h.2.mlp.experts.expert_4.c_proj.weight", {10, 6}},
      {"h.2.mlp.experts.expert_4.c_proj.bias", {6}},
      {"hypermoe.expert_embedding.model.weight", {5, 3}},
      {"hypermoe.selection_mlp.decoder.0.weight", {5, 3}},
      {"hypermoe.selection_mlp.decoder.0.bias", {5}},
      {"hypermoe.selection_mlp.decoder.2.weight", {4, 5}},
      {"hypermoe.selection_mlp.decoder.2.bias", {4}},
      {"hypermoe.layer_embedding.weight", {3, 2}},
      {"hypermoe.generator.0.project.weight", {7, 6}},
      {"hypermoe.generator.0.project.bias", {7}},
      {"hypermoe.generator.0.norm.weight", {7}},
      {"hypermoe.generator.0.norm.bias", {7}},
      {"hypermoe.generator.2.down.weight", {12, 7}},
      {"hypermoe.generator.2.down.bias", {12}},
      {"hypermoe.generator.2.up.weight", {12, 7}},
      {"hypermoe.generator.2.up.bias", {12}},
      {"hypermoe.generator.2.down_offset.weight", {2, 7}},
      {"hypermoe.generator.2.down_offset.bias", {2}},
      {"hypermoe.generator.2.up_offset.weight", {6, 7}},
      {"hypermoe.generator.2.up_offset.bias", {6}},
      {"hypermoe.scale.0", {1}},
      {"hypermoe.scale.2", {1}}};
  for (const auto& [name, shape] : expected) EXPECT_EQ(shapes[name], shape) << name;
  // 2 embeddings, ln_f, 3 blocks' attention and norms, one dense and two sparse sub-layers, 5 of
  // expert embeddings and MLP, the layer embedding, 2 generators of 12, 2 scales.
  EXPECT_EQ(shapes.size(), 2u + 2 + 3 * 8 + 4 + 2 * (2 + 5 * 4) + 5 + 1 + 2 * 12 + 2);

  const auto adapter =
      MadeTensors(TinyConfig(TinyMoe(), {{"kind", "adapter"}, {"bottleneck_dim", 3}}), at::kFloat);
  EXPECT_THAT(adapter.at("h.0.mlp.adapter.down.weight").sizes().vec(), ElementsAre(3, 6));
  EXPECT_THAT(adapter.at("h.0.mlp.adapter.up.weight").sizes().vec(), ElementsAre(6, 3));
  const auto baked = MadeTensors(
      TinyConfig(TinyMoe(), TinyHyper({{"baked", true}, {"gen_bias", true}})), at::kFloat);
  EXPECT_THAT(baked.at("hypermoe.baked.2.down").sizes().vec(), ElementsAre(5, 6, 2));
  EXPECT_THAT(baked.at("hypermoe.baked.2.up").sizes().vec(), ElementsAre(5, 2, 6));
  EXPECT_THAT(baked.at("hypermoe.baked.2.down_offset").sizes().vec(), ElementsAre(5, 2));
  EXPECT_THAT(baked.at("hypermoe.baked.2.up_offset").sizes().vec(), ElementsAre(5, 6));
  for (const auto& [name, tensor] : baked)
    EXPECT_TRUE(!name.starts_with("hypermoe.") || name.starts_with("hypermoe.baked.")) << name;
}

TEST(ModelFolderTest, PrefixesMasksAndATiedHeadAreTakenAsTheyAre) {
  const TemporaryFolder scratch;
  const auto tensors = MadeTensors(TinyConfig(), at::kFloat);
  WriteMadeFolder(scratch / "plain", TinyConfig(), tensors);
  std::map<std::string, at::Tensor> dressed;
  for (const auto& [name, tensor] : tensors) dressed["transformer." + name] = tensor;
  dressed["lm_head.weight"] = tensors.at("wte.weight");
  dressed["transformer.h.0.attn.bias"] = at::zeros({1, 1, 8, 8}, at::kBool);
  dressed["transformer.h.0.attn.masked_bias"] = at::zeros({}, at::kFloat);
  WriteMadeFolder(scratch / "dressed", TinyConfig(), dressed);
  const auto world = NewSelfCommunicator("world");
  ASSERT_TRUE(ExportModel({scratch / "dressed", scratch / "out"}, *world).ok());
  ExpectSameFolders(scratch / "out", scratch / "plain");
}

RunConfig Read(const json& config) {
  const auto read = ReadFolderConfig("config.json", config.dump());
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(RunConfig());
}

TEST(ModelFolderConfigTest, AbsentKeysHaveHuggingFacesDefaults) {
  const ModelConfig model = Read({{"model_type", "gpt2"}}).model();
  EXPECT_EQ(model.vocab_size(), 50257);
  EXPECT_EQ(model.sequence_length(), 1024);
  EXPECT_EQ(model.hidden_size(), 768);
  EXPECT_EQ(model.num_layers(), 12);
  EXPECT_EQ(model.num_heads(), 12);
  EXPECT_EQ(model.ffn_size(), 3072);
  EXPECT_EQ(model.dropout(), 0.1);
  EXPECT_EQ(model.embedding_dropout(), -1);
  EXPECT_EQ(model.layer_norm_epsilon(), 1e-5);
  EXPECT_EQ(model.init_std(), 0.02);
  EXPECT_EQ(model.activation(), ModelConfig::gelu_new);
  EXPECT_EQ(model.kind(), ModelConfig::dense);
}

TEST(ModelFolderConfigTest, DropoutsAndInnerWidthAreReadWhereTheyDiffer) {
  const ModelConfig model = Read({{"model_type", "gpt2"},
                                  {"n_inner", nullptr},
                                  {"n_embd", 24},
                                  {"resid_pdrop", 0.2},
                                  {"embd_pdrop", 0},
                                  {"attn_pdrop", 0.2},
                                  {"activation_function", "relu"}})
                                .model();
  EXPECT_EQ(model.ffn_size(), 96);
  EXPECT_EQ(model.dropout(), 0.2);
  EXPECT_EQ(model.embedding_dropout(), 0);
  EXPECT_EQ(model.attention_dropout(), -1);
  EXPECT_EQ(model.activation(), ModelConfig::relu);
}

TEST(ModelFolderConfigTest, SparseBlocksHaveTheDefaultsOfTheFormat) {
  const RunConfig plain = Read(TinyConfig({{"num_experts", 4}}));
  EXPECT_EQ(plain.model().kind(), ModelConfig::moe);
  EXPECT_EQ(plain.model().top_k(), 1);
  EXPECT_EQ(plain.model().router(), ModelConfig::switch_);
  EXPECT_FALSE(plain.model().renormalize());
  EXPECT_THAT(plain.model().sparse_layers(), ElementsAre(0, 1, 2));
  EXPECT_EQ(plain.model().balance_loss().coefficient(), 0);
  EXPECT_EQ(plain.model().balance_loss().scope(), BalanceLossConfig::micro_batch);
  EXPECT_EQ(plain.model().evaluation_capacity().mode(), CapacityConfig::none);

  const RunConfig hyper = Read(TinyConfig({{"num_experts", 4}}, json::object()));
  EXPECT_EQ(hyper.model().kind(), ModelConfig::hyper);
  HyperConfig defaults;
  FillDefaults(&defaults);
  defaults.set_execution(HyperConfig::auto_);
  EXPECT_EQ(hyper.hyper().SerializeAsString(), defaults.SerializeAsString());
}

TEST(ModelFolderConfigTest, CapacityAndLossesHoldInTrainingToo) {
  const ModelConfig model =
      Read(TinyConfig(TinyMoe({{"capacity", {{"mode", "factor_per_group"}, {"value", 2}}},
                               {"losses",
                                {{"switch_balance", 0.1},
                                 {"importance_cv2", 0.2},
                                 {"load_cv2", 0.3},
                                 {"router_z", 0.4}}}})))
          .model();
  for (const CapacityConfig& capacity : {model.training_capacity(), model.evaluation_capacity()}) {
    EXPECT_EQ(capacity.mode(), CapacityConfig::factor_per_group);
    EXPECT_EQ(capacity.factor(), 2);
    EXPECT_EQ(capacity.group_rows(), 0);
  }
  EXPECT_EQ(model.balance_loss().coefficient(), 0.1);
  EXPECT_EQ(model.importance_coefficient(), 0.2);
  EXPECT_EQ(model.load_coefficient(), 0.3);
  EXPECT_EQ(model.router_z_coefficient(), 0.4);
}

TEST(ModelFolderConfigTest, OnlyWhatHasChangedIsWrittenAnew) {
  const json source = TinyConfig(TinyMoe(), TinyHyper({{"agg", "sum"}, {"unknown", {1, 2}}}));
  RunConfig model = Read(source);
  // Byte for byte while nothing has changed.
  EXPECT_EQ(FolderConfigText(model, source.dump(7), "float32").value(), source.dump(7));
  model.mutable_model()->set_num_experts(10);
  model.mutable_hyper()->set_agg(HyperConfig::mean);
  model.mutable_hyper()->set_k_norm(HyperConfig::layernorm);
  json expected = source;
  expected["moe"]["num_experts"] = 10;
  expected["hypermoe"]["agg"] = "mean";
  expected["hypermoe"]["k_norm"] = "layernorm";
  EXPECT_EQ(json::parse(FolderConfigText(model, source.dump(), "float32").value()), expected);
  model.mutable_model()->set_kind(ModelConfig::moe);
  expected.erase("hypermoe");
  EXPECT_EQ(json::parse(FolderConfigText(model, source.dump(), "float32").value()), expected);
}

TEST(ModelFolderConfigTest, ADenseConfigurationBecomesASparseOne) {
  const json source = TinyConfig();
  RunConfig model = Read(source);
  model.mutable_model()->set_kind(ModelConfig::hyper);
  model.mutable_model()->set_num_experts(4);
  const std::string text = FolderConfigText(model, source.dump(), "float32").value();
  const json written = json::parse(text);
  EXPECT_EQ(written["model_type"], "hypermoe_gpt2");
  EXPECT_EQ(written["eos_token_id"], 10);
  EXPECT_EQ(written["moe"]["sparse_layers"], json({0, 1, 2}));
  EXPECT_EQ(written["hypermoe"]["kind"], "hyper");
  EXPECT_EQ(Read(written).model().num_experts(), 4);
}

TEST(ModelFolderConfigTest, ANewOneHasHuggingFacesKeysAndReadsBack) {
  for (const json& source : ConfigsOfEveryOption()) {
    const RunConfig model = Read(source);
    const std::string text = FolderConfigText(model, "", "float32").value();
    const RunConfig again = Read(json::parse(text));
    EXPECT_EQ(again.ShortDebugString(), model.ShortDebugString());
    const json written = json::parse(text);
    for (const char* key : {"architectures", "bos_token_id", "eos_token_id", "tie_word_embeddings",
                            "torch_dtype", "scale_attn_weights", "use_cache"}) {
      EXPECT_TRUE(written.contains(key)) << key;
    }
  }
}

TEST(ModelFolderWriterTest, ShardsAreFilledInOrderAndListed) {
  const TemporaryFolder scratch;
  const json config = TinyConfig(TinyMoe());
  WriteMadeFolder(scratch / "in", config, MadeTensors(config, at::kFloat));
  const auto world = NewSelfCommunicator("world");
  ASSERT_TRUE(ExportModel({scratch / "in", scratch / "out", 4000}, *world).ok());
  const json index = json::parse(ReadFile(scratch / "out/model.safetensors.index.json"));
  int64_t total = 0;
  for (const auto& [name, tensor] : TensorsOfFolder(scratch / "out")) {
    EXPECT_TRUE(index["weight_map"].contains(name)) << name;
    total += static_cast<int64_t>(tensor.nbytes());
  }
  EXPECT_EQ(index["metadata"]["total_size"], total);
  const std::string first = index["weight_map"]["wte.weight"],
                    last = index["weight_map"]["ln_f.bias"];
  EXPECT_THAT(first, testing::StartsWith("model-00001-of-0000"));
  EXPECT_EQ(last.substr(6, 5), last.substr(15, 5));
  for (const auto& entry : fs::directory_iterator(scratch / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    EXPECT_LT(entry.file_size(), 4000 + 4096u);
  }
}

TEST(ModelFolderWriterTest, AFolderIsCompleteOrNotThere) {
  const TemporaryFolder scratch;
  WriteMadeFolder(scratch / "in", TinyConfig(), MadeTensors(TinyConfig(), at::kFloat));
  const auto world = NewSelfCommunicator("world");
  scratch.Write("file", "");
  fs::create_directories(scratch / "full/sub");
  fs::create_directories(scratch / "empty");
  for (const char* name : {"file", "full"}) {
    const absl::Status refused = ExportModel({scratch / "in", scratch / name}, *world);
    EXPECT_EQ(ExitCodeOf(refused), ExitCode::kUsage);
    EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(name), HasSubstr("--output")));
  }
  // What a killed job has left goes; an empty folder is taken.
  fs::create_directories(scratch / ".empty.partial/old");
  EXPECT_TRUE(ExportModel({scratch / "in", scratch / "empty/"}, *world).ok());
  EXPECT_FALSE(fs::exists(scratch / ".empty.partial"));
  EXPECT_EQ(fs::exists(scratch / "empty/config.json"), true);
  // A tensor that does not fit leaves nothing behind.
  auto model = OpenModelFolder(scratch / "in").value();
  model.config.mutable_model()->set_vocab_size(12);
  const absl::Status misfit = WriteModelFolder(model, scratch / "never", 1000, *world);
  EXPECT_EQ(ExitCodeOf(misfit), ExitCode::kBadData);
  EXPECT_THAT(std::string(misfit.message()), HasSubstr("[11,6], expected [12,6]"));
  EXPECT_FALSE(fs::exists(scratch / "never"));
  EXPECT_FALSE(fs::exists(scratch / ".never.partial"));
}

TEST(ModelFolderWriterTest, SizesAreRead) {
  EXPECT_EQ(ParseByteSize("5GB").value(), 5'000'000'000);
  EXPECT_EQ(ParseByteSize("500mb").value(), 500'000'000);
  EXPECT_EQ(ParseByteSize("1.5GiB").value(), 1'610'612'736);
  EXPECT_EQ(ParseByteSize("64").value(), 64);
  for (const char* bad : {"", "GB", "-1GB", "0", "nan", "infGB", "5TBs", "1e30", "5 G B"}) {
    EXPECT_EQ(ExitCodeOf(ParseByteSize(bad).status()), ExitCode::kUsage) << bad;
  }
}

TEST(ModelTransferTest, AnImportedRunSaysWhatItIs) {
  const TemporaryFolder scratch;
  WriteMadeFolder(scratch / "in", TinyConfig(), MadeTensors(TinyConfig(), at::kDouble));
  const auto world = NewSelfCommunicator("world");
  const ImportOptions options = {scratch / "in", scratch / "run", {"runtime.seed=7"}, 2};
  const auto checkpoint = ImportModel(options, *world);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const StoredModel stored = OpenStoredModel(scratch / "run").value();
  EXPECT_EQ(stored.checkpoint, *checkpoint);
  EXPECT_FALSE(stored.info.has_moments);
  EXPECT_EQ(stored.moments, nullptr);
  EXPECT_EQ(stored.info.config.runtime().seed(), 7u);
  EXPECT_EQ(stored.info.config.runtime().dtype(), RuntimeConfig::float64);
  EXPECT_EQ(stored.model.config_json, ReadFile(scratch / "in/config.json"));
  EXPECT_TRUE(fs::exists(scratch / "run/config.textproto"));
  const auto twice = ImportModel(options, *world);
  EXPECT_EQ(ExitCodeOf(twice.status()), ExitCode::kUsage);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("already holds a run"));
}

TEST(ModelTransferTest, APresetIsRefused) {
  const TemporaryFolder scratch;
  const json config = TinyConfig(TinyMoe(), TinyHyper());
  WriteMadeFolder(scratch / "in", config, MadeTensors(config, at::kFloat));
  const auto world = NewSelfCommunicator("world");
  const auto imported =
      ImportModel({scratch / "in", scratch / "run", {"hyper.preset=paper"}, 1}, *world);
  EXPECT_EQ(ExitCodeOf(imported.status()), ExitCode::kUsage);
}

TEST(ModelTransferTest, ChangesThatTheTensorsDoNotFitAreRefused) {
  const TemporaryFolder scratch;
  WriteMadeFolder(scratch / "in", TinyConfig(), MadeTensors(TinyConfig(), at::kFloat));
  const auto world = NewSelfCommunicator("world");
  const auto imported =
      ImportModel({scratch / "in", scratch / "run", {"model.num_layers=4"}, 1}, *world);
  EXPECT_EQ(ExitCodeOf(imported.status()), ExitCode::kBadData);
  EXPECT_THAT(std::string(imported.status().message()),
              HasSubstr("missing tensor 'h.3.ln_1.bias'"));
  EXPECT_FALSE(fs::exists(scratch / "run"));
}

}  // namespace
}  // namespace hypermoe
