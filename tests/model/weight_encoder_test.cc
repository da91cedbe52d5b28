#include "model/weight_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/keyed_random.h"

namespace hypermoe {
namespace {

at::Tensor Random(at::IntArrayRef shape, const std::string& name, double std) {
  const at::Tensor values = at::empty(shape, at::kDouble);
  FillNormal(values, RandomKey{7, 0}.Derive(name), std);
  return values;
}

HyperConfig Config(bool relu, bool gradient_to_experts) {
  HyperConfig config;
  config.set_condition(HyperConfig::weights);
  config.set_conv_act(relu ? HyperConfig::relu : HyperConfig::none);
  config.set_conv_grad_to_experts(gradient_to_experts);
  return config;
}

// A network in float64, and two experts of some size.
struct Network {
  Network(const HyperConfig& config, int64_t inner, int64_t width, int64_t experts = 2)
      : factory(3, at::kDouble, &parameters),
        encoder(config, factory),
        up_eDF(Random({experts, width, inner}, "up", 0.3)),
        down_eFD(Random({experts, inner, width}, "down", 0.2)) {
    up_eDF.set_requires_grad(true);
    down_eFD.set_requires_grad(true);
  }
  at::Tensor Encode() const { return encoder.Encode(up_eDF, down_eFD); }
  // Parameters, then matrices.
  std::vector<at::Tensor> Leaves() const {
    std::vector<at::Tensor> leaves;
    for (const Parameter& parameter : parameters) leaves.push_back(parameter.value);
    leaves.push_back(up_eDF);
    leaves.push_back(down_eFD);
    return leaves;
  }

  std::vector<Parameter> parameters;
  ParameterFactory factory;
  WeightEncoder encoder;
  at::Tensor up_eDF, down_eFD;
};

// Appendix A as it stands, in LibTorch's own convolutions: no padding, sizes rounded down.
at::Tensor Plain(const Network& network, bool relu) {
  const auto p = network.Leaves();
  const auto act = [relu](const at::Tensor& x) { return relu ? at::relu(x) : x; };
  const auto conv = [](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       int64_t stride, int64_t groups) {
    return at::conv2d(x, weight, bias, at::IntArrayRef{stride, stride},
                      /*padding=*/at::IntArrayRef{0, 0}, /*dilation=*/at::IntArrayRef{1, 1},
                      groups);
  };
  at::Tensor x = at::stack({network.up_eDF.transpose(1, 2), network.down_eFD}, 1);
  x = conv(x, p[0], p[1], 5, 2);
  x = at::avg_pool2d(act(conv(x, p[2], p[3], 1, 1)), {16, 6});
  x = conv(x, p[4], p[5], 3, 32);
  x = at::avg_pool2d(act(conv(x, p[6], p[7], 1, 1)), {8, 8});
  EXPECT_EQ(x.size(2), 1);
  EXPECT_EQ(x.size(3), 1);
  return x.flatten(1);
}

double Largest(const at::Tensor& x) { return x.abs().max().item<double>(); }

std::vector<at::Tensor> GradientsOf(const at::Tensor& embeddings, const Network& network) {
  return torch::autograd::grad({embeddings}, network.Leaves(),
                               {Random(embeddings.sizes(), "gradient", 1)},
                               /*retain_graph=*/{}, /*create_graph=*/false, /*allow_unused=*/true);
}

TEST(WeightEncoderTest, HasThePapersParameters) {
  std::vector<Parameter> parameters;
  ParameterFactory factory(1, at::kFloat, &parameters);
  const WeightEncoder encoder(Config(true, false), factory);
  std::map<std::string, std::vector<int64_t>> shapes;
  int64_t count = 0;
  for (const Parameter& parameter : parameters) {
    EXPECT_EQ(parameter.group, ParameterGroup::kHyper);
    shapes[parameter.name] = parameter.value.sizes().vec();
    count += parameter.value.numel();
  }
  const std::string name = "hypermoe.weight_encoder.";
  EXPECT_EQ(shapes,
            (std::map<std::string, std::vector<int64_t>>{{name + "0.weight", {2, 1, 5, 5}},
                                                         {name + "0.bias", {2}},
                                                         {name + "1.weight", {32, 2, 1, 1}},
                                                         {name + "1.bias", {32}},
                                                         {name + "2.weight", {32, 1, 3, 3}},
                                                         {name + "2.bias", {32}},
                                                         {name + "3.weight", {128, 32, 1, 1}},
                                                         {name + "3.bias", {128}}}));
  EXPECT_EQ(count, 4692);
  EXPECT_EQ(WeightEncoder::kParameters, 4692);
}

// At the paper's size, where rows and columns are left over, and at the smallest, where none are.
TEST(WeightEncoderTest, EqualsPlainConvolutions) {
  struct Case {
    int64_t inner, width;
    bool relu;
  };
  for (const Case& size : {Case{3072, 768, true}, {1920, 720, false}}) {
    const Network network(Config(size.relu, true), size.inner, size.width);
    const at::Tensor actual = network.Encode(), expected = Plain(network, size.relu);
    EXPECT_EQ(actual.sizes(), (at::IntArrayRef{2, 128}));
    EXPECT_LE(Largest(actual - expected), 1e-13 * Largest(expected));
    // Both channels and every place count, so that one expert is not the other.
    EXPECT_GE(Largest(actual[0] - actual[1]), 1e-4 * Largest(expected));
    const auto gradients = GradientsOf(actual, network), wanted = GradientsOf(expected, network);
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_GT(Largest(wanted[i]), 0) << i;
      EXPECT_LE(Largest(gradients[i] - wanted[i]), 1e-12 * Largest(wanted[i])) << i;
    }
  }
}

// Along one direction of each tensor. Some of the 1.8 million relus have their kink within the
// step.
TEST(WeightEncoderTest, GradientsMatchDifferences) {
  for (const bool relu : {false, true}) {
    const Network network(Config(relu, true), 1920, 720, 1);
    const at::Tensor output_gradient = Random({1, 128}, "gradient", 1);
    const auto gradients = GradientsOf(network.Encode(), network);
    const std::vector<at::Tensor> leaves = network.Leaves();
    for (size_t i = 0; i < leaves.size(); ++i) {
      const at::NoGradGuard no_grad;
      // Where the gradient points, so that differences of values are large.
      const at::Tensor direction = gradients[i] / gradients[i].norm();
      const double step = 1e-5;
      const auto value = [&](double distance) {
        leaves[i].add_(direction, distance);
        return (network.Encode() * output_gradient).sum().item<double>();
      };
      const double above = value(step), below = value(-2 * step);
      leaves[i].add_(direction, step);
      const double expected = gradients[i].norm().item<double>();
      EXPECT_NEAR((above - below) / (2 * step), expected, (relu ? 1e-5 : 1e-7) * expected)
          << i << (relu ? " with relu" : "");
    }
  }
}

TEST(WeightEncoderTest, ExpertsHaveAGradientOnlyIfAskedFor) {
  const Network network(Config(true, false), 1920, 720, 1);
  const auto gradients = GradientsOf(network.Encode(), network);
  for (size_t i = 0; i < 8; ++i) EXPECT_GT(Largest(gradients[i]), 0) << i;
  EXPECT_FALSE(gradients[8].defined());
  EXPECT_FALSE(gradients[9].defined());
  {
    const at::NoGradGuard no_grad;
    EXPECT_FALSE(network.Encode().requires_grad());
  }
}

TEST(WeightEncoderTest, NoExpertsHaveNoEmbeddingsButTakePart) {
  const Network network(Config(true, true), 1920, 720, 0);
  const at::Tensor embeddings = network.Encode();
  EXPECT_EQ(embeddings.sizes(), (at::IntArrayRef{0, 128}));
  ASSERT_TRUE(embeddings.requires_grad());
  const auto gradients = GradientsOf(embeddings, network);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(Largest(gradients[i]), 0) << i;
}

TEST(WeightEncoderTest, OtherSizesAreRefused) {
  for (const auto& [inner, width, reads] : {std::tuple(1920, 720, true),
                                            {3839, 1439, true},
                                            {1919, 720, false},
                                            {1920, 719, false},
                                            {3840, 768, false},
                                            {3072, 1440, false}}) {
    EXPECT_EQ(WeightEncoder::Reads(inner, width), reads) << inner << " " << width;
  }
  const Network network(Config(true, false), 1919, 720, 1);
  EXPECT_THROW(network.Encode(), c10::Error);
}

}  // namespace
}  // namespace hypermoe
