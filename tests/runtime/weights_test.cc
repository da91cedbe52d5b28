// Condition weights in a whole model, and in a model folder.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "runtime/loaded_model.h"
#include "runtime/memory_plan.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_transfer.h"
#include "tests/support/encoded_weights.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

using nlohmann::json;

// The loss by all that it has, as the trainer differentiates it.
double TotalLoss(Trainer& trainer) {
  trainer.model().ParametersChanged();
  const StepResult result = trainer.ComputeGradients(3);
  return result.loss + result.balance_loss + result.router_z_loss;
}

// Along the gradient of each of some tensors: the network's, and experts' matrices, whose gradient
// comes through the expert and through everyone's HyperExperts.
TEST(WeightsTest, GradientsOfTheLossMatchDifferences) {
  RunConfig config = hypermoe::TinyConfig(ModelConfig::hyper, 2, RuntimeConfig::float64);
  EncodeWeights(&config);
  config.mutable_train()->set_batch_size(2);
  config.mutable_hyper()->set_conv_grad_to_experts(true);
  config.mutable_hyper()->set_conv_act(HyperConfig::none);
  Trainer trainer(config, OneRankMesh(), TinyRows(config));
  Randomize(trainer);
  TotalLoss(trainer);
  const NamedTensors gradients = Gradients(trainer);
  const at::NoGradGuard no_grad;
  int checked = 0;
  for (const Parameter& parameter : trainer.model().parameters()) {
    if (!absl::StartsWith(parameter.name, "hypermoe.weight_encoder.") &&
        !absl::StrContains(parameter.name, ".experts."))
      continue;
    for (const NamedTensor& view : GlobalViews(parameter, parameter.value)) {
      const at::Tensor& gradient = gradients.at(view.name);
      const double slope = gradient.norm().item<double>();
      if (!absl::EndsWith(view.name, ".weight") || slope == 0) continue;
      const double step = 1e-5 * std::min(1.0, 1 / slope);
      const auto loss = [&](double distance) {
        view.tensor.add_(gradient, distance / slope);
        const at::AutoGradMode with_grad(true);
        return TotalLoss(trainer);
      };
      const double above = loss(step), below = loss(-2 * step);
      view.tensor.add_(gradient, step / slope);
      EXPECT_NEAR((above - below) / (2 * step), slope, 1e-4 * slope) << view.name;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 4 + 2 * 2);
}

// A model of two experts in block 1, random.
json FolderConfig(const json& hyper) {
  json config =
      hypermoe::TinyConfig(TinyMoe({{"num_experts", 2}, {"sparse_layers", {1}}}),
                           TinyHyper({{"condition", "weights"}, {"expert_embedding_dim", 128}}));
  config.update({{"n_embd", 720}, {"n_inner", 1920}, {"n_layer", 2}});
  config["hypermoe"].update(hyper);
  return config;
}

at::Tensor Logits(const std::string& path) {
  const at::NoGradGuard no_grad;
  const auto loaded = LoadModel(path, "float64", NewSelfCommunicator("world"), 1);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  if (!loaded.ok()) return {};
  Batch batch;
  batch.row_ids_B = at::arange(2, at::kLong);
  batch.input_ids_BS = (at::arange(16, at::kLong) * 7).remainder(11).view({2, 8});
  return loaded->model->Forward(batch, ForwardMode()).logits_TV;
}

TEST(WeightsFolderTest, ComesOutAsItWasAndBakes) {
  const TemporaryFolder scratch;
  const auto world = NewSelfCommunicator("world");
  const json config = FolderConfig(json::object());
  const auto tensors = RandomTensors(config, at::kFloat);
  EXPECT_EQ(tensors.at("hypermoe.weight_encoder.3.weight").sizes(),
            (at::IntArrayRef{128, 32, 1, 1}));
  WriteMadeFolder(scratch / "in", config, tensors);
  ASSERT_TRUE(ImportModel({scratch / "in", scratch / "run", {}, 1}, *world).ok());
  ASSERT_TRUE(ExportModel({scratch / "run", scratch / "out"}, *world).ok());
  ExpectSameFolders(scratch / "out", scratch / "in");

  ExportOptions bake = {scratch / "in", scratch / "baked"};
  bake.bake = true;
  const absl::Status baked = ExportModel(bake, *world);
  ASSERT_TRUE(baked.ok()) << baked;
  for (const auto& [name, tensor] : TensorsOfFolder(scratch / "baked")) {
    EXPECT_TRUE(!absl::StartsWith(name, "hypermoe.") || absl::StartsWith(name, "hypermoe.baked."))
        << name;
  }
  const at::Tensor expected = Logits(scratch / "in"), actual = Logits(scratch / "baked");
  EXPECT_LT((actual - expected).abs().max().item<double>(),
            1e-12 * expected.abs().max().item<double>());
}

// What the format does not know is written only where it is not the format's.
TEST(WeightsFolderTest, OptionsBeyondTheFormatAreKept) {
  const json plain = FolderConfig(json::object());
  for (const json& options : {json::object(), json{{"conv_act", "none"}},
                              json{{"conv_grad_to_experts", true}, {"z", "one_minus_prob"}}}) {
    const auto read = ReadFolderConfig("config.json", FolderConfig(options).dump());
    ASSERT_TRUE(read.ok()) << read.status();
    const json written = json::parse(FolderConfigText(*read, "", "float32").value())["hypermoe"];
    for (const char* key : {"conv_act", "conv_grad_to_experts"}) {
      EXPECT_EQ(written.contains(key), options.contains(key)) << key;
      EXPECT_EQ(written.value(key, json()), options.value(key, json())) << key;
    }
    const json again = FolderConfig(written);
    EXPECT_EQ(ReadFolderConfig("config.json", again.dump())->ShortDebugString(),
              read->ShortDebugString());
  }
}

// Of a model whose step needs little otherwise: an expert being worked on, and experts' gradients.
TEST(WeightsTest, MemoryCountsTheNetworkAtWork) {
  RunConfig config = hypermoe::TinyConfig(ModelConfig::hyper, 2, RuntimeConfig::float32);
  EncodeWeights(&config);
  config.mutable_model()->set_sequence_length(2);
  config.mutable_train()->set_batch_size(1);
  const int64_t workspace = PlanMemory(config, 1, 1).workspace;
  EXPECT_GE(workspace, 4 * 384 * 144 * 160);
  config.mutable_hyper()->set_conv_grad_to_experts(true);
  EXPECT_EQ(PlanMemory(config, 1, 1).workspace, workspace + 2 * 2 * 720 * 1920 * 4);
}

}  // namespace
}  // namespace hypermoe
