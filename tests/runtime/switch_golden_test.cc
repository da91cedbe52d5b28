// Switch Transformers against what Hugging Face's computed for the same weights
// (tests/data/README.md), pass by pass; the commands' way to the same is in
// tests/distributed/verify_test.cc.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/router_losses.h"
#include "parallel/flat_buffer.h"
#include "runtime/safetensors.h"
#include "runtime/tensor_source.h"
#include "runtime/trainer.h"

namespace hypermoe {
namespace {

constexpr double kTolerance = 1e-9;
constexpr int64_t kVocabulary = 101;

// config.json of switch_moe; switch_hyper differs where `hyper` says.
RunConfig GoldenConfig(bool hyper) {
  RunConfig config;
  ModelConfig& model = *config.mutable_model();
  model.set_family(ModelConfig::switch_transformers);
  model.set_kind(hyper ? ModelConfig::hyper : ModelConfig::moe);
  model.set_vocab_size(kVocabulary);
  model.set_hidden_size(24);
  model.set_head_size(8);
  model.set_num_heads(2);
  model.set_ffn_size(40);
  model.set_num_layers(2);
  model.set_num_decoder_layers(hyper ? 4 : 2);
  model.set_num_experts(8);
  model.set_layer_norm_epsilon(1e-6);
  model.set_activation(ModelConfig::relu);
  model.set_dropout(0.1);
  model.set_router_jitter(0.01);
  CapacityConfig& capacity = *model.mutable_evaluation_capacity();
  capacity.set_mode(CapacityConfig::fixed_per_row);
  capacity.set_tokens_per_row(hyper ? 4 : 3);
  BalanceLossConfig& balance = *model.mutable_balance_loss();
  balance.set_coefficient(hyper ? 0.01 : 0.001);
  balance.set_scope(BalanceLossConfig::stack_row);
  balance.set_dropped_count_as_first(true);
  model.set_router_z_coefficient(hyper ? 0.002 : 0.001);
  HyperConfig& of_hyper = *config.mutable_hyper();
  of_hyper.set_expert_embedding_dim(9);
  of_hyper.set_mlp_hidden_dim(11);
  of_hyper.set_selection_embedding_dim(10);
  of_hyper.set_layer_embedding_dim(5);
  of_hyper.set_hidden_dim(12);
  of_hyper.set_bottleneck_dim(7);
  config.mutable_runtime()->set_dtype(RuntimeConfig::float64);
  return config;
}

// A case's model in float64, and what it should compute.
class SwitchGoldenTest : public testing::TestWithParam<bool> {
 protected:
  void Load(bool hyper) {
    const std::string folder =
        std::string(HYPERMOE_TEST_DATA) + (hyper ? "/switch_hyper" : "/switch_moe");
    config_ = GoldenConfig(hyper);
    world_ = NewSelfCommunicator("world");
    model_ = MakeModel(config_, ProcessMesh::Create(world_, 1));
    buffers_ = MakeFlatBuffers(model_->parameters());
    const auto weights = *SafetensorsFile::Open(folder + "/model.safetensors");
    std::vector<NamedTensor> tensors;
    for (const std::string& name : weights->names()) tensors.push_back({name, *weights->Get(name)});
    const absl::Status filled = FillParameters(TensorsInMemory(tensors), folder, 8, buffers_);
    ASSERT_TRUE(filled.ok()) << filled.message();
    model_->ParametersChanged();
    golden_ = *SafetensorsFile::Open(folder + "/golden.safetensors");
    for (const std::string& name : golden_->names()) {
      if (name.rfind("tokens.", 0) != 0) left_.insert(name);
    }
    batch_.input_ids_BS = Golden("input_ids");
    batch_.labels_BS = Golden("labels");
    batch_.attention_mask_BS = Golden("attention_mask").to(at::kBool);
    batch_.row_ids_B = at::arange(batch_.input_ids_BS.size(0), at::kLong);
  }

  at::Tensor Golden(const std::string& name) {
    left_.erase(name);
    return golden_->Get(name)->clone();
  }

  void Compare(const std::string& name, const at::Tensor& actual) {
    const at::Tensor expected = Golden(name).to(at::kDouble);
    ASSERT_EQ(actual.sizes(), expected.sizes()) << name;
    const double scale = std::max(expected.abs().max().item<double>(), 1e-3);
    EXPECT_LE((actual.detach().to(at::kDouble) - expected).abs().max().item<double>(),
              kTolerance * scale)
        << name;
  }

  void CompareRouting(const std::vector<RoutingResult>& routing) {
    const std::vector<int64_t>& layers = model_->sparse_layers();
    ASSERT_EQ(routing.size(), layers.size());
    bool dropped = false;
    for (size_t i = 0; i < layers.size(); ++i) {
      const std::string name = "routing." + std::to_string(layers[i]) + ".";
      const at::Tensor experts = Golden(name + "experts"), kept = Golden(name + "kept");
      EXPECT_TRUE(routing[i].expert_ids_TK.view(experts.sizes()).equal(experts)) << name;
      EXPECT_TRUE(routing[i].taken_TK.view(kept.sizes()).to(at::kByte).equal(kept)) << name;
      dropped |= !kept.all().item<bool>();
    }
    EXPECT_TRUE(dropped);
  }

  // Ids that greedy decoding gives, the start token first.
  at::Tensor Greedy(int64_t length, bool cached) {
    const at::NoGradGuard no_grad;
    const int64_t rows = batch_.input_ids_BS.size(0);
    at::Tensor ids_BT = at::full({rows, 1}, config_.model().decoder_start_id(), at::kLong);
    at::Tensor ended_B = at::full({rows}, 0, at::kBool);
    Batch batch = batch_;
    batch.labels_BS = at::Tensor();
    KeyValueCache cache;
    while (ids_BT.size(1) < length) {
      batch.decoder_ids_BT = cached ? ids_BT.slice(1, cache.length).contiguous() : ids_BT;
      ForwardMode mode;
      if (cached) mode.cache = &cache;
      const at::Tensor logits =
          model_->Forward(batch, mode).logits_TV.view({rows, -1, kVocabulary});
      const at::Tensor best_B = logits.select(1, -1).argmax(1);
      const at::Tensor next_B = best_B.masked_fill(ended_B, config_.model().pad_id());
      ended_B = ended_B.logical_or(next_B.eq(config_.model().end_id()));
      ids_BT = at::cat({ids_BT, next_B.unsqueeze(1)}, 1);
      // What the encoder reads is of no interest any more.
      if (cached) batch.input_ids_BS = at::Tensor();
    }
    return ids_BT;
  }

  RunConfig config_;
  std::shared_ptr<Communicator> world_;
  std::unique_ptr<LanguageModel> model_;
  std::vector<FlatBuffer> buffers_;
  std::shared_ptr<const SafetensorsFile> golden_;
  std::set<std::string> left_;  // entries not compared yet
  Batch batch_;
};

TEST_P(SwitchGoldenTest, LossesRoutingAndGradientsAreHuggingFaces) {
  ASSERT_NO_FATAL_FAILURE(Load(GetParam()));
  const ModelOutput output = model_->Forward(batch_, ForwardMode{});
  const int64_t rows = batch_.labels_BS.size(0), length = batch_.labels_BS.size(1);
  Compare("logits", output.logits_TV.view({rows, length, kVocabulary}).clone());
  CompareRouting(output.routing);
  const auto counted = batch_.labels_BS.ne(kIgnoredLabel).sum().item<double>();
  const at::Tensor cross_entropy = CrossEntropy(output.logits_TV, batch_.labels_BS, counted);
  const RouterLosses router =
      ComputeRouterLosses(output.routing, config_.model(), {1, rows}, *world_);
  const at::Tensor total = cross_entropy + router.Total();
  Compare("loss.ce", cross_entropy.view({1}));
  Compare("loss.switch_balance", router.switch_balance.view({1}));
  Compare("loss.router_z", router.router_z.view({1}));
  Compare("loss.total", total.view({1}));

  for (FlatBuffer& buffer : buffers_) buffer.ZeroGradients();
  total.backward();
  model_->FinishBackward();
  for (const Parameter& parameter : model_->parameters()) {
    for (const NamedTensor& view : GlobalViews(parameter, parameter.value.grad()))
      Compare("grad." + view.name, view.tensor);
  }
  EXPECT_TRUE(left_.empty()) << *left_.begin();
}

INSTANTIATE_TEST_SUITE_P(Cases, SwitchGoldenTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "hyper" : "moe"; });

// With a cache the decoder sees one position at a time and its capacity never binds; without, the
// whole prefix, where it does. The encoder drops tokens in both.
TEST_F(SwitchGoldenTest, GreedyDecodingIsHuggingFaces) {
  ASSERT_NO_FATAL_FAILURE(Load(false));
  const at::Tensor cached = Golden("tokens.greedy"), uncached = Golden("tokens.greedy_nocache");
  EXPECT_TRUE(Greedy(cached.size(1), true).equal(cached));
  EXPECT_TRUE(Greedy(uncached.size(1), false).equal(uncached));
  EXPECT_FALSE(cached.equal(uncached));
}

// A cache whose rows were exchanged goes on as the rows themselves do.
TEST_F(SwitchGoldenTest, RowsOfACacheCanBeSelected) {
  ASSERT_NO_FATAL_FAILURE(Load(false));
  const at::NoGradGuard no_grad;
  const at::Tensor rows = at::tensor({2L, 0L, 2L, 3L, 1L});
  const at::Tensor first_B1 = at::full({4, 1}, 0, at::kLong),
                   second_B1 = at::tensor({7L, 8L, 9L, 10L}).view({4, 1});
  const auto pass = [&](const at::Tensor& ids_B1, KeyValueCache* cache) {
    Batch batch = batch_;
    batch.labels_BS = at::Tensor();
    batch.decoder_ids_BT = ids_B1;
    batch.row_ids_B = at::arange(ids_B1.size(0), at::kLong);
    ForwardMode mode;
    mode.cache = cache;
    return model_->Forward(batch, mode).logits_TV;
  };
  KeyValueCache cache, selected;
  pass(first_B1, &cache);
  pass(first_B1, &selected);
  selected.SelectRows(rows);
  const at::Tensor expected = pass(second_B1, &cache).index_select(0, rows);
  const at::Tensor actual = pass(second_B1.index_select(0, rows), &selected);
  EXPECT_LE((actual - expected).abs().max().item<double>(), 1e-12);
}

// Untied with the same three tables, the head sees what is not divided by sqrt(D).
TEST_F(SwitchGoldenTest, UntiedModelsHaveThreeTables) {
  ASSERT_NO_FATAL_FAILURE(Load(false));
  const at::NoGradGuard no_grad;
  RunConfig config = config_;
  config.mutable_model()->set_tie_embeddings(false);
  const auto untied = MakeModel(config, ProcessMesh::Create(world_, 1));
  std::map<std::string, at::Tensor> tied;
  for (const Parameter& parameter : model_->parameters()) tied[parameter.name] = parameter.value;
  int tables = 0;
  for (Parameter& parameter : untied->parameters()) {
    const auto found = tied.find(parameter.name);
    tables += found == tied.end();
    parameter.value.copy_(found == tied.end() ? tied.at("shared.weight") : found->second);
  }
  EXPECT_EQ(tables, 3);
  const at::Tensor expected = model_->Forward(batch_, {}).logits_TV * std::sqrt(24.0);
  EXPECT_LE((untied->Forward(batch_, {}).logits_TV - expected).abs().max().item<double>(), 1e-12);
}

}  // namespace
}  // namespace hypermoe
