#include "tests/support/made_model_folder.h"

#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "kernels/keyed_random.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_layout.h"
#include "runtime/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {

namespace fs = std::filesystem;
using nlohmann::json;

json TinyConfig(const json& moe, const json& hypermoe) {
  json config = {{"model_type", moe.is_null() ? "gpt2" : "hypermoe_gpt2"},
                 {"vocab_size", 11},
                 {"n_positions", 8},
                 {"n_embd", 6},
                 {"n_layer", 3},
                 {"n_head", 2},
                 {"n_inner", 10},
                 {"resid_pdrop", 0.1},
                 {"embd_pdrop", 0.0},
                 {"attn_pdrop", 0.1},
                 {"layer_norm_epsilon", 1e-05},
                 {"eos_token_id", 10},
                 {"task_specific_params", {{"text-generation", {{"do_sample", true}}}}}};
  if (!moe.is_null()) config["moe"] = moe;
  if (!hypermoe.is_null()) config["hypermoe"] = hypermoe;
  return config;
}

json TinyMoe(const json& changes) {
  json moe = {{"num_experts", 5}, {"sparse_layers", {2, 0}}};
  moe.update(changes);
  return moe;
}

json TinyHyper(const json& changes) {
  json hyper = {{"expert_embedding_dim", 3}, {"mlp_hidden_dim", 5}, {"selection_embedding_dim", 4},
                {"layer_embedding_dim", 2},  {"hidden_dim", 7},     {"bottleneck_dim", 2}};
  hyper.update(changes);
  return hyper;
}

json TinySwitch(const json& changes) {
  json config = {{"model_type", "switch_transformers"},
                 {"vocab_size", 11},
                 {"d_model", 6},
                 {"d_kv", 4},
                 {"d_ff", 10},
                 {"num_layers", 2},
                 {"num_decoder_layers", 3},
                 {"num_heads", 2},
                 {"num_experts", 4},
                 {"num_sparse_encoder_layers", 1},
                 {"num_sparse_decoder_layers", 1},
                 {"expert_capacity", 5},
                 {"decoder_start_token_id", 2},
                 {"task_specific_params", {{"summarization", {{"num_beams", 4}}}}}};
  config.merge_patch(changes);
  return config;
}

json TinyT5(const json& changes) {
  json config = {{"model_type", "t5"}, {"vocab_size", 11}, {"d_model", 6},
                 {"d_kv", 4},          {"d_ff", 10},       {"num_layers", 2},
                 {"num_heads", 2},     {"n_positions", 9}, {"decoder_start_token_id", 0}};
  config.merge_patch(changes);
  return config;
}

std::map<std::string, at::Tensor> MadeTensors(const json& config, c10::ScalarType dtype) {
  const auto read = ReadFolderConfig("config.json", config.dump());
  EXPECT_TRUE(read.ok()) << read.status();
  std::map<std::string, at::Tensor> tensors;
  ForEachFolderTensor(*read, [&](const std::string& name, at::IntArrayRef shape) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    const auto tag = static_cast<double>(std::hash<std::string>()(name) % 4096);
    tensors[name] = at::arange(count, at::kDouble).div(16).add(tag).view(shape).to(dtype);
  });
  return tensors;
}

std::map<std::string, at::Tensor> RandomTensors(const json& config, c10::ScalarType dtype) {
  auto tensors = MadeTensors(config, dtype);
  for (auto& [name, tensor] : tensors)
    FillNormal(tensor, RandomKey{1, 0}.Derive(name), /*std=*/0.5);
  return tensors;
}

void WriteMadeFolder(const std::string& folder, const json& config,
                     const std::map<std::string, at::Tensor>& tensors) {
  fs::create_directories(folder);
  WriteFile(folder + "/config.json", config.dump(1));
  std::vector<NamedTensor> named;
  for (const auto& [name, tensor] : tensors) named.push_back({name, tensor});
  const auto written = WriteSafetensors(folder + "/model.safetensors", named, {});
  EXPECT_TRUE(written.ok()) << written.status();
}

std::map<std::string, at::Tensor> TensorsOfFolder(const std::string& folder) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file_name = entry.path().filename();
    if (entry.path().extension() != ".safetensors" || file_name.starts_with("golden")) continue;
    const auto file = SafetensorsFile::Open(entry.path().string());
    EXPECT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
    for (const std::string& name : (*file)->names())
      EXPECT_TRUE(tensors.emplace(name, (*file)->Get(name).value()).second) << name;
  }
  return tensors;
}

void ExpectSameFolders(const std::string& actual, const std::string& expected) {
  EXPECT_EQ(json::parse(ReadFile(actual + "/config.json")),
            json::parse(ReadFile(expected + "/config.json")));
  const auto tensors = TensorsOfFolder(actual);
  const auto file = SafetensorsFile::Open(expected + "/model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(tensors.size(), (*file)->names().size());
  for (const std::string& name : (*file)->names()) {
    const at::Tensor wanted = (*file)->Get(name).value();
    const auto found = tensors.find(name);
    ASSERT_NE(found, tensors.end()) << name;
    EXPECT_EQ(found->second.scalar_type(), wanted.scalar_type()) << name;
    EXPECT_EQ(found->second.sizes(), wanted.sizes()) << name;
    ASSERT_EQ(found->second.nbytes(), wanted.nbytes()) << name;
    EXPECT_EQ(std::memcmp(found->second.const_data_ptr(), wanted.const_data_ptr(), wanted.nbytes()),
              0)
        << name;
  }
}

}  // namespace hypermoe
