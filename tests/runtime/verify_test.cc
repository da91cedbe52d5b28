// Verify sees a change of any entry and of any weight, and says which entry it is. That it passes
// where it should is seen by tests/distributed/verify_test.cc.
#include "runtime/verify.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>

#include "runtime/hyper_execution.h"
#include "runtime/safetensors.h"
#include "runtime/stored_model.h"
#include "runtime/trainer.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAreArray;

const char kCase[] = HYPERMOE_TEST_DATA "/golden_cases/selected_k2";

// A safetensors file that can be changed.
struct Contents {
  explicit Contents(const std::string& path) {
    const auto file = *SafetensorsFile::Open(path);
    metadata = file->metadata();
    for (const std::string& name : file->names()) tensors[name] = file->Get(name)->clone();
  }
  void Write(const std::string& path) const {
    std::vector<NamedTensor> list;
    for (const auto& [name, tensor] : tensors) list.push_back({name, tensor});
    ASSERT_TRUE(WriteSafetensors(path, list, metadata).ok());
  }
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

class VerifyTest : public testing::Test {
 protected:
  VerifyTest() : golden_(std::string(kCase) + "/golden.safetensors") {
    options_.model = kCase;
    options_.golden = folder_ / "golden.safetensors";
    options_.dtype = "float64";
  }
  absl::StatusOr<VerifyResult> Run() {
    golden_.Write(options_.golden);
    return Verify(options_, NewSelfCommunicator("world"), 1);
  }
  // Names of the entries that are not met.
  std::vector<std::string> Failed() {
    const auto result = Run();
    EXPECT_TRUE(result.ok()) << result.status().message();
    std::vector<std::string> failed;
    if (!result.ok()) return failed;
    EXPECT_EQ(result->entries.size() + 2, golden_.tensors.size()) << "but the two inputs, all";
    for (const EntryDifference& entry : result->entries) {
      if (!entry.ok) failed.push_back(entry.name);
    }
    return failed;
  }
  at::Tensor& Golden(const std::string& name) { return golden_.tensors.at(name); }

  VerifyOptions options_;
  TemporaryFolder folder_;
  Contents golden_;
};

// The folders of tests/data whose HyperExperts are generated.
std::vector<std::string> HyperFolders() {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(HYPERMOE_TEST_DATA)) {
    if (entry.path().filename() != "config.json") continue;
    const std::string folder = entry.path().parent_path().string();
    const auto stored = OpenStoredModel(folder);
    EXPECT_TRUE(stored.ok()) << stored.status().message();
    if (stored.ok() && stored->model.config.model().kind() == ModelConfig::hyper &&
        !stored->model.config.hyper().baked())
      folders.push_back(folder);
  }
  return folders;
}

// What differs between the folder's golden values and its model in float64, with `execution`.
std::vector<std::string> Failed(const std::string& folder, HyperConfig::Execution execution) {
  const auto stored = OpenStoredModel(folder);
  RunConfig config = stored->model.config;
  config.mutable_runtime()->set_dtype(RuntimeConfig::float64);
  config.mutable_hyper()->set_execution(execution);
  LoadedModel loaded;
  loaded.info.config = config;
  loaded.mesh = ProcessMesh::Create(NewSelfCommunicator("world"), 1);
  loaded.model = MakeModel(config, loaded.mesh);
  loaded.buffers = MakeFlatBuffers(loaded.model->parameters());
  EXPECT_TRUE(
      FillParameters(*stored->model.tensors, folder, config.model().num_experts(), loaded.buffers)
          .ok());
  loaded.model->ParametersChanged();
  const auto golden = OpenGoldenFile(folder + "/golden.safetensors", config.model());
  EXPECT_TRUE(golden.ok()) << golden.status().message();
  std::vector<std::string> failed;
  for (const EntryDifference& entry : CompareWithGolden(loaded, *golden, 1e-10)) {
    if (!entry.ok) failed.push_back(entry.name);
  }
  return failed;
}

// `verify` takes the execution that auto chooses.
TEST(GoldenExecutionTest, EveryExecutionComputesTheGoldenValues) {
  const std::vector<std::string> folders = HyperFolders();
  EXPECT_GE(folders.size(), 9u);
  for (const std::string& folder : folders) {
    std::vector<HyperConfig::Execution> executions = {HyperConfig::bilinear,
                                                      HyperConfig::per_token};
    if (SharedBySelection(OpenStoredModel(folder)->model.config.hyper())) {
      executions.push_back(HyperConfig::source);
      executions.push_back(HyperConfig::owner);
    }
    for (const HyperConfig::Execution execution : executions)
      EXPECT_THAT(Failed(folder, execution), IsEmpty())
          << folder << ", " << HyperConfig::Execution_Name(execution);
  }
}

TEST_F(VerifyTest, ToleranceFollowsThePrecision) {
  EXPECT_EQ(Run()->tolerance, 1e-9);
  EXPECT_THAT(Failed(), IsEmpty());
  options_.dtype = "";
  EXPECT_EQ(Run()->tolerance, 1e-4);
  EXPECT_THAT(Failed(), IsEmpty());
  options_.tolerance = 1e-13;
  EXPECT_EQ(Run()->tolerance, 1e-13);
  EXPECT_THAT(Failed(), Contains("logits"));
}

// Each entry's last element, by twice the tolerance, or to another integer.
TEST_F(VerifyTest, SeesAChangeInEveryEntry) {
  std::vector<std::string> changed;
  for (auto& [name, tensor] : golden_.tensors) {
    if (name == "input_ids" || name == "labels") continue;
    const at::Tensor last = tensor.view({-1}).narrow(0, tensor.numel() - 1, 1);
    if (tensor.is_floating_point()) {
      last.add_(2e-9 * std::max(tensor.abs().max().item<double>(), 1e-3));
    } else {
      last.copy_(1 - last);
    }
    changed.push_back(name);
  }
  EXPECT_THAT(Failed(), UnorderedElementsAreArray(changed));
}

TEST_F(VerifyTest, SeesChangesWithinTheToleranceAsNone) {
  for (auto& [name, tensor] : golden_.tensors) {
    if (tensor.is_floating_point())
      tensor.add_(0.5e-9 * std::max(tensor.abs().max().item<double>(), 1e-3));
  }
  EXPECT_THAT(Failed(), IsEmpty());
}

TEST_F(VerifyTest, NamesOneChangedEntry) {
  for (const std::string name : {"logits", "loss.ce", "grad.wte.weight", "routing.1.kept"}) {
    const at::Tensor before = Golden(name).clone();
    Golden(name).view({-1})[0] += 1;
    EXPECT_THAT(Failed(), ElementsAre(name));
    Golden(name) = before;
  }
}

TEST_F(VerifyTest, WhatTheModelDoesNotComputeIsAFailure) {
  for (const char* name :
       {"loss.mystery", "grad.h.0.mlp.c_fc.weight", "grad.h.0.mlp.experts.expert_4.c_fc.weight",
        "grad.lm_head.weight", "routing.2.experts", "hidden_states"}) {
    golden_.tensors[name] = at::ones({1}, at::kDouble);
    const auto result = Run();
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_THAT(Failed(), ElementsAre(name));
    golden_.tensors.erase(name);
  }
  golden_.tensors["tokens.beam3_lp1"] = Golden("tokens.greedy");
  EXPECT_THAT(Failed(), ElementsAre("tokens.beam3_lp1"));
}

TEST_F(VerifyTest, OtherShapesAndNoNumbersAreFailures) {
  Golden("grad.ln_f.bias") = at::ones({7}, at::kDouble);
  Golden("routing.0.experts") = Golden("routing.0.experts").narrow(2, 0, 1);
  Golden("routing.0.kept") = Golden("routing.0.kept").to(at::kLong);
  Golden("grad.wpe.weight")[0][0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(Failed(), UnorderedElementsAreArray({"grad.ln_f.bias", "routing.0.experts",
                                                   "routing.0.kept", "grad.wpe.weight"}));
}

// Fewer entries than the model could give are right too.
TEST_F(VerifyTest, FilesWithoutGradientsOrTokens) {
  std::erase_if(golden_.tensors, [](const auto& entry) {
    return entry.first.rfind("grad.", 0) == 0 || entry.first.rfind("tokens.", 0) == 0;
  });
  EXPECT_THAT(Failed(), IsEmpty());
  Golden("loss.total").add_(1e-6);
  EXPECT_THAT(Failed(), ElementsAre("loss.total"));
}

TEST_F(VerifyTest, DecodesWithAndWithoutCache) {
  golden_.tensors["tokens.greedy_nocache"] = Golden("tokens.greedy");
  golden_.metadata["tokens.greedy_nocache"] = golden_.metadata.at("tokens.greedy");
  EXPECT_THAT(Failed(), IsEmpty());
  Golden("tokens.greedy_nocache") = 1 - Golden("tokens.greedy");
  EXPECT_THAT(Failed(), ElementsAre("tokens.greedy_nocache"));
}

TEST_F(VerifyTest, SeesEveryChangedWeight) {
  const std::string model = folder_ / "model";
  std::filesystem::copy(kCase, model, std::filesystem::copy_options::recursive);
  options_.model = model;
  Contents weights(model + "/model.safetensors");
  for (const std::string name :
       {"h.0.mlp.experts.expert_3.c_proj.bias", "h.1.attn.c_attn.weight", "wpe.weight",
        "h.0.mlp.router.w_gate", "hypermoe.expert_embedding.decoder.weight",
        "hypermoe.generator.0.norm.weight"}) {
    const at::Tensor before = weights.tensors.at(name).clone();
    weights.tensors.at(name).view({-1})[0] += 1e-6;
    weights.Write(model + "/model.safetensors");
    EXPECT_THAT(Failed(), Contains("logits")) << name;
    weights.tensors.at(name) = before;
  }
}

TEST_F(VerifyTest, RefusesAFolderOrFileThatIsNotThere) {
  options_.model = folder_ / "nothing";
  EXPECT_FALSE(Run().ok());
  options_.model = kCase;
  options_.golden = folder_ / "nothing.safetensors";
  EXPECT_EQ(ExitCodeOf(Verify(options_, NewSelfCommunicator("world"), 1).status()), ExitCode::kIo);
}

}  // namespace
}  // namespace hypermoe
