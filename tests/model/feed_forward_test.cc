// Sparse feed-forward sub-layers against the equations, written out.
#include "model/feed_forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/keyed_noise.h"
#include "model/sparse_blocks.h"
#include "parallel/communicator.h"
#include "tests/support/random_tensor.h"

namespace hypermoe {
namespace {

constexpr int64_t kRows = 3, kTokens = kRows * 4, kWidth = 6;

ModelConfig JitteredConfig(ModelConfig::Kind kind) {
  ModelConfig config;
  config.set_family(ModelConfig::switch_transformers);
  config.set_kind(kind);
  config.set_num_layers(2);
  config.set_num_decoder_layers(2);
  config.set_hidden_size(kWidth);
  config.set_num_heads(1);
  config.set_ffn_size(10);
  config.set_num_experts(4);
  config.set_activation(ModelConfig::relu);
  config.set_router_bias(true);
  config.set_router_jitter(0.2);
  config.set_router_jitter_in_place(true);
  return config;
}

// Block 1 of the encoder, with random values.
class Built {
 public:
  Built(const ModelConfig& config, at::ScalarType dtype)
      : dispatcher_(std::make_shared<TokenDispatcher>(NewSelfCommunicator("expert"), 4)) {
    ParameterFactory factory(1, dtype, &parameters_);
    HyperConfig hyper;
    hyper.set_execution(HyperConfig::source);
    hyper.set_bottleneck_dim(3);
    sparse_.emplace(config, hyper, dispatcher_, factory);
    const std::optional<SparseParts> parts = sparse_->PartsOf(1);
    network_.emplace("mlp.", config, 1, &*parts, factory);
    const at::NoGradGuard no_grad;
    for (Parameter& parameter : parameters_)
      parameter.value.copy_(Random(parameter.value.sizes(), parameter.name, dtype));
    sparse_->Invalidate();
  }

  at::Tensor Value(const std::string& name) const {
    for (const Parameter& parameter : parameters_) {
      if (parameter.name == name) return parameter.value;
    }
    ADD_FAILURE() << "no parameter " << name;
    return {};
  }

  at::Tensor Forward(const at::Tensor& x_TD) {
    ForwardMode mode;
    mode.training = true;
    mode.key = RandomKey{7, 3};
    std::vector<RoutingResult> routing;
    return network_->Forward(x_TD, RowIds(), mode, &routing, nullptr);
  }

  // Rows of a batch that are not its first ones.
  static at::Tensor RowIds() { return at::arange(2, 2 + kRows, at::kLong); }

 private:
  std::vector<Parameter> parameters_;
  std::shared_ptr<TokenDispatcher> dispatcher_;
  std::optional<SparseBlocks> sparse_;
  std::optional<FeedForward> network_;
};

at::Tensor Factors(const at::Tensor& x_TD) {
  const RandomKey key = RandomKey{7, 3}.Derive(uint64_t{1}).Derive("router").Derive("jitter");
  return KeyedJitter(at::ones_like(x_TD), 0.2, key, Built::RowIds());
}

at::Tensor Input(at::ScalarType dtype) { return Random({kTokens, kWidth}, "x", dtype); }

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// Router and experts see what the jitter makes of x, as Hugging Face, which multiplies in place.
TEST(JitterInPlaceTest, IsHuggingFacesSubLayer) {
  Built built(JitteredConfig(ModelConfig::moe), at::kDouble);
  const at::Tensor x = Input(at::kDouble).set_requires_grad(true),
                   other_x = x.detach().clone().set_requires_grad(true);
  const at::Tensor seen = other_x * Factors(other_x);
  const at::Tensor probs = at::softmax(seen.matmul(built.Value("mlp.router.classifier.weight")) +
                                           built.Value("mlp.router.classifier.bias"),
                                       1);
  const at::Tensor chosen = probs.argmax(1);
  const at::Tensor up = built.Value("mlp.experts.expert_{e}.wi.weight"),
                   down = built.Value("mlp.experts.expert_{e}.wo.weight");
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < kTokens; ++t) {
    const auto e = chosen[t].item<int64_t>();
    rows.push_back(at::relu(seen[t].matmul(up[e])).matmul(down[e]) * probs[t][e]);
  }
  const at::Tensor expected = at::stack(rows), actual = built.Forward(x);
  EXPECT_LE(Difference(actual, expected), 1e-12);
  const at::Tensor weights = Random({kTokens, kWidth}, "gradient", at::kDouble);
  (actual * weights).sum().backward();
  const at::Tensor bias_gradient =
      built.Value("mlp.router.classifier.bias").grad().detach().clone();
  (expected * weights).sum().backward();
  EXPECT_LE(Difference(x.grad(), other_x.grad()), 1e-12);
  // Both have added to it.
  EXPECT_LE(Difference(built.Value("mlp.router.classifier.bias").grad(), bias_gradient * 2), 1e-12);
  EXPECT_GT(bias_gradient.abs().max().item<double>(), 1e-3);
}

// All that acts in the sub-layer sees it, HyperExperts too.
TEST(JitterInPlaceTest, IsThatOfTheInput) {
  for (const ModelConfig::Kind kind :
       {ModelConfig::hyper, ModelConfig::moe_share, ModelConfig::adapter}) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      ModelConfig config = JitteredConfig(kind);
      Built jittered(config, dtype);
      config.set_router_jitter(0);
      Built plain(config, dtype);
      const at::Tensor x = Input(dtype);
      EXPECT_TRUE(jittered.Forward(x).equal(plain.Forward(x * Factors(x))));
      EXPECT_FALSE(jittered.Forward(x).equal(plain.Forward(x)));
    }
  }
}

// A router that computes in float32 multiplies its own copy of bfloat16 inputs.
TEST(JitterInPlaceTest, OfBfloat16IsTheRoutersAlone) {
  ModelConfig config = JitteredConfig(ModelConfig::hyper);
  Built in_place(config, at::kFloat);
  config.set_router_jitter_in_place(false);
  Built copied(config, at::kFloat);
  const at::Tensor x = Input(at::kFloat).to(at::kBFloat16);
  EXPECT_TRUE(in_place.Forward(x).equal(copied.Forward(x)));
  EXPECT_FALSE(in_place.Forward(x.to(at::kFloat)).equal(copied.Forward(x.to(at::kFloat))));
}

}  // namespace
}  // namespace hypermoe
