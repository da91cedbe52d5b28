// The model against values that another implementation computed in float64 (tests/data/README.md).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "model/gpt2.h"
#include "model/router_losses.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

constexpr double kTolerance = 1e-10;

struct GoldenCase {
  std::string name;
  ModelConfig model;
  HyperConfig hyper;
};

GoldenCase DenseCase() {
  GoldenCase golden;
  golden.name = "gpt2_dense";
  ModelConfig& model = golden.model;
  model.set_kind(ModelConfig::dense);
  model.set_vocab_size(97);
  model.set_sequence_length(24);
  model.set_num_layers(2);
  model.set_hidden_size(32);
  model.set_num_heads(4);
  model.set_ffn_size(80);
  return golden;
}

GoldenCase HyperCase(HyperConfig::Execution execution) {
  GoldenCase golden;
  golden.name = "gpt2_hyper";
  ModelConfig& model = golden.model;
  model.set_kind(ModelConfig::hyper);
  model.set_vocab_size(89);
  model.set_sequence_length(32);
  model.set_num_layers(3);
  model.set_hidden_size(32);
  model.set_num_heads(4);
  model.set_ffn_size(48);
  model.set_num_experts(6);
  model.add_sparse_layers(0);
  model.add_sparse_layers(2);
  model.mutable_balance_loss()->set_coefficient(0.01);
  HyperConfig& hyper = golden.hyper;
  hyper.set_execution(execution);
  hyper.set_expert_embedding_dim(10);
  hyper.set_mlp_hidden_dim(12);
  hyper.set_selection_embedding_dim(14);
  hyper.set_layer_embedding_dim(5);
  hyper.set_hidden_dim(16);
  hyper.set_bottleneck_dim(8);
  model.set_router_z_coefficient(0.001);
  return golden;
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    const std::string folder = std::string(HYPERMOE_TEST_DATA) + "/" + GetParam().name;
    golden_ = *SafetensorsFile::Open(folder + "/golden.safetensors");
    world_ = NewSelfCommunicator("world");
    const auto dispatcher =
        GetParam().model.kind() == ModelConfig::dense
            ? nullptr
            : std::make_shared<TokenDispatcher>(world_, GetParam().model.num_experts());
    model_ = std::make_unique<Gpt2>(GetParam().model, GetParam().hyper, 1,
                                    Precision{at::kDouble, at::kDouble}, dispatcher);
    LoadWeights(folder + "/model.safetensors");
  }

  // Every tensor of the folder, and none beside, is a parameter of its name and shape.
  void LoadWeights(const std::string& path) {
    const auto file = *SafetensorsFile::Open(path);
    std::set<std::string> unused;
    for (const std::string& name : file->names()) unused.insert(name);
    for (const Parameter& parameter : model_->parameters()) {
      for (const NamedTensor& view : GlobalViews(parameter, parameter.value)) {
        ASSERT_EQ(unused.erase(view.name), 1u) << view.name;
        const at::Tensor value = *file->Get(view.name);
        ASSERT_EQ(value.sizes(), view.tensor.sizes()) << view.name;
        view.tensor.copy_(value);
      }
    }
    EXPECT_TRUE(unused.empty()) << *unused.begin();
  }

  at::Tensor Golden(const std::string& name) const { return golden_->Get(name)->clone(); }

  // The file's labels belong to their own position; ours to the position that predicts them.
  Batch GoldenBatch() const {
    const at::Tensor labels = Golden("labels");
    const at::Tensor none = at::full({labels.size(0), 1}, kIgnoredLabel, at::kLong);
    return {Golden("input_ids"), at::cat({labels.narrow(1, 1, labels.size(1) - 1), none}, 1),
            at::arange(labels.size(0), at::kLong)};
  }

  std::shared_ptr<const SafetensorsFile> golden_;
  std::shared_ptr<Communicator> world_;
  std::unique_ptr<Gpt2> model_;
};

void ExpectClose(const at::Tensor& actual, const at::Tensor& golden, double floor,
                 const std::string& what) {
  const double scale = std::max(golden.abs().max().item<double>(), floor);
  EXPECT_LE((actual.reshape(golden.sizes()) - golden).abs().max().item<double>(),
            kTolerance * scale)
      << what;
}

TEST_P(GoldenTest, LogitsLossesRoutingAndGradients) {
  const Batch batch = GoldenBatch();
  const ModelOutput output = model_->Forward(batch, ForwardMode{});
  ExpectClose(output.logits_TV, Golden("logits"), 1e-3, "logits");

  const double labels =
      static_cast<double>(batch.labels_BS.ne(kIgnoredLabel).sum().item<int64_t>());
  const at::Tensor ce = CrossEntropy(output.logits_TV, batch.labels_BS, labels);
  ExpectClose(ce, Golden("loss.ce"), 1e-3, "loss.ce");
  at::Tensor total = ce;
  if (!output.routing.empty()) {
    const RouterLosses losses =
        ComputeRouterLosses(output.routing, batch.input_ids_BS.size(1), GetParam().model,
                            {1, batch.input_ids_BS.size(0)}, *world_);
    ExpectClose(losses.switch_balance, Golden("loss.switch_balance"), 1e-3, "loss.switch_balance");
    ExpectClose(losses.router_z, Golden("loss.router_z"), 1e-3, "loss.router_z");
    total = total + losses.Total();
    for (size_t i = 0; i < output.routing.size(); ++i) {
      const at::Tensor expected =
          Golden("routing." + std::to_string(model_->sparse_layers()[i]) + ".experts");
      EXPECT_TRUE(output.routing[i].expert_ids_TK.flatten().equal(expected.flatten()));
    }
  }
  ExpectClose(total, Golden("loss.total"), 1e-3, "loss.total");

  total.backward();
  model_->FinishBackward();
  double largest = 0;
  for (const std::string& name : golden_->names()) {
    if (name.rfind("grad.", 0) == 0)
      largest = std::max(largest, Golden(name).abs().max().item<double>());
  }
  size_t compared = 0, gradients = 0;
  for (const std::string& name : golden_->names()) gradients += name.rfind("grad.", 0) == 0;
  for (const Parameter& parameter : model_->parameters()) {
    for (const NamedTensor& view : GlobalViews(parameter, parameter.value.grad())) {
      ExpectClose(view.tensor, Golden("grad." + view.name), 1e-3 * largest, view.name);
      ++compared;
    }
  }
  EXPECT_EQ(compared, gradients);
}

TEST_P(GoldenTest, GreedyDecodingWithTheCache) {
  const at::NoGradGuard no_grad;
  const at::Tensor expected = Golden("tokens.greedy");
  constexpr int64_t kPromptLength = 4;  // the file's header says so
  KeyValueCache cache;
  ForwardMode mode;
  mode.cache = &cache;
  Batch batch = GoldenBatch();
  batch.input_ids_BS = batch.input_ids_BS.narrow(1, 0, kPromptLength).contiguous();
  std::vector<at::Tensor> tokens;
  while (static_cast<int64_t>(tokens.size()) < expected.size(1)) {
    const at::Tensor logits =
        model_->Forward(batch, mode)
            .logits_TV.view({expected.size(0), -1, GetParam().model.vocab_size()});
    tokens.push_back(logits.select(1, logits.size(1) - 1).argmax(1));
    batch.input_ids_BS = tokens.back().unsqueeze(1);
  }
  EXPECT_TRUE(at::stack(tokens, 1).equal(expected));
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest,
                         testing::Values(DenseCase(), HyperCase(HyperConfig::source),
                                         HyperCase(HyperConfig::owner),
                                         HyperCase(HyperConfig::per_token)),
                         [](const auto& info) {
                           const auto execution = info.param.hyper.execution();
                           return info.param.name + (execution == HyperConfig::per_token
                                                         ? "_per_token"
                                                     : execution == HyperConfig::owner ? "_owner"
                                                                                       : "");
                         });

}  // namespace
}  // namespace hypermoe
