// Model folders that cannot be read, each in one way.
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "runtime/model_folder.h"
#include "runtime/model_folder_writer.h"
#include "runtime/process_memory.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/safetensors_bytes.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

constexpr char kTensors[] = "/model.safetensors";
constexpr char kIndex[] = "/model.safetensors.index.json";

json Sparse() { return TinyConfig(TinyMoe(), TinyHyper()); }

struct Malformed {
  const char* title;
  std::function<void(const std::string& folder)> damage;
  std::vector<std::string> words;  // all in the message
  ExitCode code = ExitCode::kBadData;
};

// A good folder is damaged in each way, and must then be refused.
void ExpectRefused(const std::vector<Malformed>& cases,
                   const std::function<void(const std::string& folder)>& make) {
  const TemporaryFolder scratch;
  const std::string folder = scratch / "model";
  make(folder);
  EXPECT_TRUE(OpenModelFolder(folder).ok()) << OpenModelFolder(folder).status();
  for (const Malformed& bad : cases) {
    SCOPED_TRACE(bad.title);
    fs::remove_all(folder);
    make(folder);
    bad.damage(folder);
    const auto opened = OpenModelFolder(folder);
    EXPECT_FALSE(opened.ok());
    EXPECT_EQ(ExitCodeOf(opened.status()), bad.code) << opened.status();
    for (const std::string& word : bad.words)
      EXPECT_THAT(std::string(opened.status().message()), HasSubstr(word));
  }
}

void MakeSparse(const std::string& folder) {
  WriteMadeFolder(folder, Sparse(), MadeTensors(Sparse(), at::kFloat));
}

// Another text for config.json.
Malformed ConfigText(const char* title, const std::string& text, std::vector<std::string> words) {
  words.push_back("config.json");
  return {title, [text](const std::string& folder) { WriteFile(folder + "/config.json", text); },
          words};
}

// config.json with `patch` (RFC 7396) applied.
Malformed ConfigPatch(const char* title, const json& patch, std::vector<std::string> words,
                      ExitCode code = ExitCode::kBadData) {
  json config = Sparse();
  config.merge_patch(patch);
  Malformed bad = ConfigText(title, config.dump(), std::move(words));
  bad.code = code;
  return bad;
}

TEST(MalformedModelFolderTest, ConfigurationsThatAreNotJson) {
  const std::string good = Sparse().dump();
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  ExpectRefused(
      {
          ConfigText("empty", "", {"not valid JSON"}),
          ConfigText("cut off", good.substr(0, 50), {"not valid JSON"}),
          ConfigText("NaN", replaced("\"resid_pdrop\":0.1", "\"resid_pdrop\":NaN"),
                     {"not valid JSON", "column"}),
          ConfigText("Infinity", replaced("\"resid_pdrop\":0.1", "\"resid_pdrop\":Infinity"),
                     {"not valid JSON"}),
          ConfigText("beyond a double", replaced("\"resid_pdrop\":0.1", "\"resid_pdrop\":1e999"),
                     {"not valid JSON", "number overflow"}),
          ConfigText("key twice", replaced("\"n_layer\":3", "\"n_layer\":3,\"n_layer\":3"),
                     {"'n_layer' stands twice"}),
          ConfigText("key of a block twice",
                     replaced("\"num_experts\":5", "\"num_experts\":5,\"num_experts\":6"),
                     {"'num_experts' stands twice"}),
          ConfigText("key of an ignored block twice",
                     replaced("\"do_sample\":true", "\"a\":1,\"a\":1"), {"'a' stands twice"}),
          ConfigText("byte order mark", "\xEF\xBB\xBF" + good, {"byte order mark"}),
          ConfigText("NUL byte", good + std::string(1, '\0'), {"NUL"}),
          ConfigText("not UTF-8", replaced("do_sample", "do_\xFFsample"), {"not valid JSON"}),
          ConfigText("comment", "// a model\n" + good, {"not valid JSON"}),
          ConfigText("deep", std::string(100'000, '['), {"nested deeper than 64"}),
          ConfigText("a list", "[" + good + "]", {"array, not an object"}),
          ConfigText("two values", good + good, {"not valid JSON"}),
          ConfigText("large", good + std::string(1 << 20, ' '), {"at most 1048576"}),
      },
      MakeSparse);
}

TEST(MalformedModelFolderTest, ConfigurationsWithWrongValues) {
  ExpectRefused(
      {
          ConfigPatch("no model type", {{"model_type", nullptr}}, {"'model_type' is null"}),
          ConfigPatch("model type is a number", {{"model_type", 1}}, {"'model_type' is 1"}),
          ConfigPatch("negative size", {{"n_layer", -1}}, {"'n_layer' is -1", "from 1 to 256"}),
          ConfigPatch("size of 0", {{"n_head", 0}}, {"'n_head' is 0"}),
          ConfigPatch("size beyond the range", {{"vocab_size", 4294967297}}, {"'vocab_size'"}),
          ConfigPatch("size beyond 64 bits", {{"vocab_size", 1e30}}, {"'vocab_size' is 1e+30"}),
          ConfigPatch("size with a fraction", {{"n_embd", 6.5}}, {"'n_embd' is 6.5", "integer"}),
          ConfigPatch("size as a text", {{"n_embd", "6"}}, {"'n_embd' is \\\"6\\\""}),
          ConfigPatch("size as a truth value", {{"n_embd", true}}, {"'n_embd' is true"}),
          ConfigPatch("negative inner width", {{"n_inner", -4}}, {"'n_inner' is -4"}),
          ConfigPatch("width and heads", {{"n_head", 4}}, {"'n_embd' (6)", "'n_head' (4)"}),
          ConfigPatch("dropout above 1", {{"resid_pdrop", 1.5}}, {"'resid_pdrop' is 1.5"}),
          ConfigPatch("dropout below 0", {{"embd_pdrop", -1}}, {"'embd_pdrop' is -1"}),
          ConfigPatch("epsilon of 0", {{"layer_norm_epsilon", 0}}, {"'layer_norm_epsilon' is 0"}),
          ConfigPatch("unknown activation", {{"activation_function", "swish"}},
                      {"'activation_function'", "swish", "gelu_new"}),
          ConfigPatch("switch as a text", {{"tie_word_embeddings", "yes"}},
                      {"'tie_word_embeddings'", "true or false"}),
          ConfigPatch("no block moe", {{"moe", nullptr}}, {"'moe' is missing"}),
          ConfigPatch("dense with experts", {{"model_type", "gpt2"}}, {"dense", "'moe'"}),
          ConfigPatch("no number of experts", {{"moe", {{"num_experts", nullptr}}}},
                      {"'moe.num_experts' is missing"}),
          ConfigPatch("no experts", {{"moe", {{"num_experts", 0}}}}, {"'moe.num_experts' is 0"}),
          ConfigPatch("too many choices", {{"moe", {{"top_k", 6}}}}, {"'moe.top_k' is 6", "(5)"}),
          ConfigPatch("unknown router", {{"moe", {{"router", "topk"}}}},
                      {"'moe.router'", "noisy_topk"}),
          ConfigPatch("no sparse blocks", {{"moe", {{"sparse_layers", json::array()}}}},
                      {"'moe.sparse_layers' is []"}),
          ConfigPatch("block twice", {{"moe", {{"sparse_layers", {0, 0}}}}}, {"each once"}),
          ConfigPatch("block beyond", {{"moe", {{"sparse_layers", {3}}}}}, {"from 0 to 2"}),
          ConfigPatch("blocks as a number", {{"moe", {{"sparse_layers", 1}}}},
                      {"'moe.sparse_layers' is 1"}),
          ConfigPatch("unknown capacity", {{"moe", {{"capacity", {{"mode", "most"}}}}}},
                      {"'moe.capacity.mode'", "fixed_per_row"}),
          ConfigPatch("capacity without a value",
                      {{"moe", {{"capacity", {{"mode", "fixed_per_row"}}}}}},
                      {"'moe.capacity.value' is null", "integer"}),
          ConfigPatch("negative loss", {{"moe", {{"losses", {{"router_z", -1}}}}}},
                      {"'moe.losses.router_z' is -1"}),
          ConfigPatch("losses as a list", {{"moe", {{"losses", {1}}}}},
                      {"'moe.losses' is [1]", "an object"}),
          ConfigPatch("hypermoe as a text", {{"hypermoe", "hyper"}}, {"'hypermoe' is"}),
          ConfigPatch("unknown kind", {{"hypermoe", {{"kind", "dense"}}}},
                      {"'hypermoe.kind'", "moe_share"}),
          ConfigPatch("a word of ours that is not the format's",
                      {{"hypermoe", {{"k_norm", "no_norm"}}}}, {"'hypermoe.k_norm'", "\"none\""}),
          ConfigPatch("weighting of selected experts",
                      {{"hypermoe", {{"condition", "selected"}, {"z", "one_minus_prob"}}}},
                      {"'hypermoe.z'", "binary"}),
          ConfigPatch("experts too small to be encoded",
                      {{"hypermoe", {{"condition", "weights"}, {"expert_embedding_dim", 128}}}},
                      {"'hypermoe.condition' is \"weights\"", "width 720 to 1439",
                       "inner width 1920 to 3839"}),
          ConfigPatch("negative dimension", {{"hypermoe", {{"hidden_dim", -7}}}},
                      {"'hypermoe.hidden_dim' is -7"}),
          ConfigPatch("baked for two choices", {{"baked", true}, {"moe", {{"top_k", 2}}}},
                      {"'baked' is true", "'moe.top_k' 1"}),
      },
      MakeSparse);
}

TEST(MalformedModelFolderTest, ConfigurationsThatAreNotSupported) {
  const ExitCode config = ExitCode::kConfig;
  ExpectRefused(
      {
          ConfigPatch("another family", {{"model_type", "mt5"}},
                      {"mt5", "not supported by this version"}, config),
          ConfigPatch("a head of its own", {{"tie_word_embeddings", false}},
                      {"'tie_word_embeddings' is false", "only true"}, config),
          ConfigPatch("unscaled attention", {{"scale_attn_weights", false}},
                      {"'scale_attn_weights'"}, config),
          ConfigPatch("attention scaled by layer", {{"scale_attn_by_inverse_layer_idx", true}},
                      {"'scale_attn_by_inverse_layer_idx'"}, config),
          ConfigPatch("cross attention", {{"add_cross_attention", true}}, {"'add_cross_attention'"},
                      config),
          ConfigPatch("quantized", {{"quantization_config", {{"bits", 4}}}},
                      {"'quantization_config'"}, config),
          ConfigPatch("another activation", {{"hypermoe", {{"act", "gelu"}}}},
                      {"'hypermoe.act'", "not supported by this version"}, config),
      },
      MakeSparse);
}

void Truncate(const std::string& path, int64_t missing) {
  fs::resize_file(path, fs::file_size(path) - missing);
}

// Makes in the header of model.safetensors the first `from` a `to`, and keeps its length true.
std::function<void(const std::string&)> HeaderEdit(const std::string& from, const std::string& to) {
  return [=](const std::string& folder) {
    const std::string bytes = ReadFile(folder + kTensors);
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    std::string header = bytes.substr(8, length);
    const size_t at = header.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    WriteFile(folder + kTensors,
              SafetensorsBytes(header.replace(at, from.size(), to), bytes.substr(8 + length)));
  };
}

// Writes the folder again with its tensors as `change` leaves them.
std::function<void(const std::string&)> TensorChange(
    const std::function<void(std::map<std::string, at::Tensor>*)>& change) {
  return [=](const std::string& folder) {
    auto tensors = MadeTensors(Sparse(), at::kFloat);
    change(&tensors);
    WriteMadeFolder(folder, Sparse(), tensors);
  };
}

TEST(MalformedModelFolderTest, TensorsThatCannotBeRead) {
  ExpectRefused(
      {
          {"truncated", [](const std::string& f) { Truncate(f + kTensors, 1); }, {"cut off"}},
          {"a header alone",
           [](const std::string& f) { fs::resize_file(f + kTensors, 1000); },
           {"model.safetensors", "header of"}},
          {"empty", [](const std::string& f) { WriteFile(f + kTensors, ""); }, {"0 bytes"}},
          {"header beyond the file",
           [](const std::string& f) {
             WriteFile(f + kTensors, SafetensorsBytes("{}", "").replace(0, 1, "\x40"));
           },
           {"header of 64 bytes in a file of 10"}},
          {"huge header",
           [](const std::string& f) { WriteFile(f + kTensors, std::string(16, '\x7F')); },
           {"at most 100000000"}},
          {"bytes at the end",
           [](const std::string& f) { WriteFile(f + kTensors, ReadFile(f + kTensors) + "x"); },
           {"the file has"}},
          {"overlapping tensors",
           HeaderEdit("\"data_offsets\":[0,", "\"data_offsets\":[4,"),
           {"data_offsets"}},
          {"tensor twice",
           HeaderEdit("\"h.0.attn.c_attn.weight\"", "\"h.0.attn.c_attn.bias\""),
           {"'h.0.attn.c_attn.bias' stands twice"}},
          {"negative size", HeaderEdit("\"shape\":[18]", "\"shape\":[-18]"), {"-18"}},
          {"size beyond 64 bits",
           HeaderEdit("\"shape\":[18]", "\"shape\":[4294967296,4294967296]"),
           {"overflows"}},
          {"unknown dtype", HeaderEdit("\"F32\"", "\"F33\""), {"unknown dtype 'F33'"}},
      },
      MakeSparse);
}

TEST(MalformedModelFolderTest, TensorsThatDoNotFit) {
  ExpectRefused(
      {
          {"integers",
           TensorChange([](auto* tensors) {
             auto& bias = (*tensors)["ln_f.bias"];
             bias = bias.to(at::kInt);
           }),
           {"'ln_f.bias' is I32", "F32, F64, F16 or BF16"}},
          {"an 8-bit dtype",
           HeaderEdit("\"F32\",\"shape\":[18]", "\"F8_E4M3\",\"shape\":[72]"),
           {"F8_E4M3", "not supported"}},
          {"all that does not fit",
           TensorChange([](auto* tensors) {
             tensors->erase("h.0.ln_1.bias");
             tensors->erase("h.2.mlp.experts.expert_4.c_fc.weight");
             tensors->emplace("h.3.ln_1.bias", at::zeros({6}));
             (*tensors)["wpe.weight"] = at::zeros({6, 8});
           }),
           {"missing tensor 'h.0.ln_1.bias'",
            "missing tensor 'h.2.mlp.experts.expert_4.c_fc.weight'",
            "unexpected tensor 'h.3.ln_1.bias'", "'wpe.weight' is [6,8], expected [8,6]"}},
          {"a head of its own",
           TensorChange([](auto* tensors) {
             auto head = (*tensors)["wte.weight"].clone();
             head[10][5] = -1;
             tensors->emplace("lm_head.weight", head);
           }),
           {"'lm_head.weight' differs from 'wte.weight'"}},
          {"a head of another dtype",
           TensorChange([](auto* tensors) {
             tensors->emplace("lm_head.weight", (*tensors)["wte.weight"].to(at::kHalf));
           }),
           {"'lm_head.weight' differs"}},
          {"with and without prefix",
           TensorChange([](auto* tensors) {
             tensors->emplace("transformer.wte.weight", (*tensors)["wte.weight"]);
           }),
           {"'wte.weight' is there twice"}},
      },
      MakeSparse);
}

TEST(MalformedModelFolderTest, FilesThatAreNotThere) {
  ExpectRefused(
      {
          {"no tensors",
           [](const std::string& f) { fs::remove(f + kTensors); },
           {"neither model.safetensors nor"}},
          {"pickle",
           [](const std::string& f) { fs::rename(f + kTensors, f + "/pytorch_model.bin"); },
           {"pytorch_model.bin", "pickle", "save_pretrained"}},
          {"a folder in its place",
           [](const std::string& f) {
             fs::remove(f + kTensors);
             fs::create_directories(f + kTensors);
           },
           {"not a regular file"}},
          {"a link out of the folder",
           [](const std::string& f) {
             fs::rename(f + kTensors, f + "/../elsewhere");
             fs::create_symlink("../elsewhere", f + kTensors);
           },
           {"'model.safetensors'", "link out of the folder"}},
          {"a link to nothing",
           [](const std::string& f) {
             fs::remove(f + kTensors);
             fs::create_symlink("nothing", f + kTensors);
           },
           {"'model.safetensors' is not there"}},
          {"no configuration",
           [](const std::string& f) { fs::remove(f + "/config.json"); },
           {"'config.json' is not there"}},
      },
      MakeSparse);
}

void MakeSharded(const std::string& folder) {
  MakeSparse(folder + "_whole");
  const auto world = NewSelfCommunicator("world");
  const auto whole = OpenModelFolder(folder + "_whole");
  ASSERT_TRUE(whole.ok());
  const absl::Status written = WriteModelFolder(*whole, folder, 6000, *world);
  ASSERT_TRUE(written.ok()) << written;
  fs::remove_all(folder + "_whole");
}

std::function<void(const std::string&)> IndexChange(const std::function<void(json*)>& change) {
  return [=](const std::string& folder) {
    json index = json::parse(ReadFile(folder + kIndex));
    change(&index);
    WriteFile(folder + kIndex, index.dump());
  };
}

std::function<void(const std::string&)> ShardOfWte(const json& name) {
  return IndexChange([=](json* index) { (*index)["weight_map"]["wte.weight"] = name; });
}

TEST(MalformedModelFolderTest, IndexesThatAreWrong) {
  const std::string first = "model-00001-of-00002.safetensors",
                    second = "model-00002-of-00002.safetensors";
  ExpectRefused(
      {
          {"both forms",
           [](const std::string& f) { WriteFile(f + kTensors, ""); },
           {"both model.safetensors and model.safetensors.index.json"}},
          {"a path upwards", ShardOfWte("../model.safetensors"), {"plain name", "'../model"}},
          {"a path into the folder", ShardOfWte("sub/model.safetensors"), {"plain name"}},
          {"an absolute path", ShardOfWte("/etc/model.safetensors"), {"plain name"}},
          {"the folder above", ShardOfWte(".."), {"'..' is not a .safetensors file"}},
          {"not a safetensors file", ShardOfWte("pytorch_model.bin"), {"'pytorch_model.bin'"}},
          {"a NUL in a name", ShardOfWte(std::string("a\0.safetensors", 14)), {"plain name"}},
          {"a missing shard",
           ShardOfWte("model-3.safetensors"),
           {"'model-3.safetensors' is not there"}},
          {"a removed shard",
           [=](const std::string& f) { fs::remove(f + "/" + second); },
           {"'" + second + "' is not there"}},
          {"a truncated shard",
           [=](const std::string& f) { Truncate(f + "/" + second, 8); },
           {second, "cut off"}},
          {"a shard given by a number", ShardOfWte(1), {"'wte.weight' 1, expected a file name"}},
          {"the wrong shard", ShardOfWte(second), {"'wte.weight' is not in " + second}},
          {"a tensor that no shard has",
           IndexChange([=](json* index) { (*index)["weight_map"]["more"] = first; }),
           {"'more' is not in " + first}},
          {"a tensor that is not listed",
           IndexChange([](json* index) { (*index)["weight_map"].erase("wte.weight"); }),
           {"'wte.weight' of " + first + " is not in the index"}},
          {"no map",
           IndexChange([](json* index) { index->erase("weight_map"); }),
           {"'weight_map' is not an object"}},
          {"an empty map",
           IndexChange([](json* index) { (*index)["weight_map"] = json::object(); }),
           {"'weight_map' is not an object that names"}},
          {"a list",
           [](const std::string& f) { WriteFile(f + kIndex, "[]"); },
           {"index.json", "not an object"}},
          {"tensor twice",
           [=](const std::string& f) {
             WriteFile(f + kIndex, R"({"weight_map":{"wte.weight":"a","wte.weight":"b"}})");
           },
           {"'wte.weight' stands twice"}},
          {"a link out of the folder",
           [=](const std::string& f) {
             fs::rename(f + "/" + second, f + "/../" + second);
             fs::create_symlink("../" + second, f + "/" + second);
           },
           {"link out of the folder"}},
          {"pickle shards",
           [=](const std::string& f) {
             fs::rename(f + kIndex, f + "/pytorch_model.bin.index.json");
             fs::rename(f + "/" + first, f + "/pytorch_model-00001-of-00002.bin");
           },
           {"pickle", "safe_serialization=True"}},
      },
      MakeSharded);
}

TEST(MalformedModelFolderTest, LinksWithinHuggingFacesCacheAreFollowed) {
  const TemporaryFolder cache;
  MakeSparse(cache / "blobs");
  fs::create_directories(cache / "snapshots/0123");
  for (const char* name : {"config.json", "model.safetensors"})
    fs::create_symlink(std::string("../../blobs/") + name,
                       cache / ("snapshots/0123/" + std::string(name)));
  const auto opened = OpenModelFolder(cache / "snapshots/0123");
  EXPECT_TRUE(opened.ok()) << opened.status();
}

// Sizes that a configuration or a header claims are compared with what the files hold before
// memory is taken for them.
TEST(MalformedModelFolderTest, ClaimsTakeNoMemory) {
  const TemporaryFolder scratch;
  MakeSparse(scratch / "model");
  OpenModelFolder(scratch / "model").IgnoreError();
  const int64_t before = ReadProcessMemory().peak_resident;
  json config = Sparse();
  config.merge_patch({{"n_embd", 65536},
                      {"n_layer", 64},
                      {"vocab_size", 1048576},
                      {"n_inner", 262144},
                      {"moe", {{"num_experts", 4096}}}});
  WriteFile(scratch / "model/config.json", config.dump());
  const auto opened = OpenModelFolder(scratch / "model");
  EXPECT_EQ(ExitCodeOf(opened.status()), ExitCode::kBadData);
  EXPECT_THAT(std::string(opened.status().message()),
              AllOf(HasSubstr("'wte.weight' is [11,6], expected [1048576,65536]"),
                    HasSubstr("and "), HasSubstr(" more")));
  WriteFile(scratch / "model/model.safetensors",
            SafetensorsBytes(R"({"wte.weight":{"dtype":"F32","shape":[1048576,65536],)"
                             R"("data_offsets":[0,274877906944]}})",
                             "data"));
  EXPECT_THAT(std::string(OpenModelFolder(scratch / "model").status().message()),
              HasSubstr("274877906944 bytes of data, the file has 4"));
  EXPECT_LT(ReadProcessMemory().peak_resident - before, 32 << 20);
}

}  // namespace
}  // namespace hypermoe
