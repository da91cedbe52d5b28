#include "model/hyper_init.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/keyed_random.h"
#include "model/hyper_generator.h"

namespace hypermoe {
namespace {

constexpr int kExperts = 6, kWidth = 64, kBottleneck = 16;

ModelConfig Model() {
  ModelConfig model;
  model.set_hidden_size(kWidth);
  model.set_num_experts(kExperts);
  model.set_num_layers(100);  // rows of the layer embedding
  return model;
}

HyperConfig Hyper(HyperConfig::Initial init) {
  HyperConfig hyper;
  hyper.set_init(init);
  hyper.set_bottleneck_dim(kBottleneck);
  return hyper;
}

// What a generator has at the start, by its global names.
std::map<std::string, at::Tensor> InitialValues(const HyperConfig& hyper) {
  std::vector<Parameter> parameters;
  ParameterFactory factory(1, at::kDouble, &parameters);
  const HyperGenerator generator(hyper, Model(), {0}, factory);
  std::map<std::string, at::Tensor> values;
  for (const Parameter& parameter : parameters) values[parameter.name] = parameter.value.detach();
  return values;
}

// Five standard errors, of the mean and of the mean square.
void ExpectMoments(const at::Tensor& t, double std, double kurtosis) {
  const auto count = static_cast<double>(t.numel());
  EXPECT_LT(std::abs(t.mean().item<double>()), 5 * std / std::sqrt(count));
  EXPECT_NEAR(t.square().mean().item<double>() / (std * std), 1,
              5 * std::sqrt((kurtosis - 1) / count));
}

void ExpectNormal(const at::Tensor& t, double std) {
  ExpectMoments(t, std, 3);
  // A uniform distribution of this standard deviation ends at 1.73 of it.
  EXPECT_GT(t.abs().max().item<double>(), 2 * std);
}

void ExpectUniform(const at::Tensor& t, double bound) {
  ExpectMoments(t, bound / std::sqrt(3.0), 1.8);
  EXPECT_LE(t.abs().max().item<double>(), bound);
}

void ExpectZero(const at::Tensor& t) { EXPECT_EQ(t.abs().max().item<double>(), 0); }

const std::string kEmbedding = "hypermoe.expert_embedding.0.weight",
                  kLayerEmbedding = "hypermoe.layer_embedding.weight",
                  kMlp = "hypermoe.selection_mlp.0.", kGenerator = "hypermoe.generator.model.";

// torch.nn.Linear's: weight and bias uniform in +-1 / sqrt(inputs).
void ExpectLinear(const std::map<std::string, at::Tensor>& values, const std::string& name) {
  const double bound = 1 / std::sqrt(static_cast<double>(values.at(name + ".weight").size(1)));
  ExpectUniform(values.at(name + ".weight"), bound);
  ExpectUniform(values.at(name + ".bias"), bound);
}

TEST(HyperInitTest, ZeroUAndOffSmallStartLikeTheAuthorsUpToTheGenerator) {
  for (const auto init : {HyperConfig::zero_u, HyperConfig::off_small}) {
    const auto values = InitialValues(Hyper(init));
    ExpectNormal(values.at(kEmbedding), 1);
    ExpectNormal(values.at(kLayerEmbedding), 1);
    ExpectLinear(values, kMlp + "0");
    ExpectLinear(values, kMlp + "2");
    ExpectLinear(values, kGenerator + "project");
    ExpectZero(values.at(kGenerator + "down.bias"));
    ExpectZero(values.at(kGenerator + "up.bias"));
  }
}

// The authors' bounds for the maps from k: 1e-3 sqrt(3 / (q h)), sqrt(3 / (q b)), sqrt(3 / q).
TEST(HyperInitTest, OffSmallHasTheAuthorsBounds) {
  HyperConfig hyper = Hyper(HyperConfig::off_small);
  hyper.set_gen_bias(true);
  const auto values = InitialValues(hyper);
  const double q = hyper.hidden_dim();
  ExpectUniform(values.at(kGenerator + "down.weight"), 1e-3 * std::sqrt(3 / (q * kWidth)));
  ExpectUniform(values.at(kGenerator + "up.weight"), 1e-3 * std::sqrt(3 / (q * kBottleneck)));
  for (const char* name : {"down_offset", "up_offset"}) {
    ExpectUniform(values.at(kGenerator + name + ".weight"), 1e-3 * std::sqrt(3 / q));
    ExpectZero(values.at(kGenerator + name + ".bias"));
  }
}

TEST(HyperInitTest, NormalInitsDifferInTheirEmbeddings) {
  for (const auto& [init, std, embedding_std] :
       {std::tuple(HyperConfig::normal_1e2, 1e-2, 1.0), {HyperConfig::normal_2e2, 2e-2, 2e-2}}) {
    HyperConfig hyper = Hyper(init);
    hyper.set_gen_bias(true);
    for (const auto& [name, value] : InitialValues(hyper)) {
      SCOPED_TRACE(name);
      if (name == kEmbedding || name == kLayerEmbedding) {
        ExpectNormal(value, embedding_std);
      } else if (name.ends_with(".bias")) {
        ExpectZero(value);
      } else {
        ExpectNormal(value, std);
      }
    }
  }
}

// torch.nn.Conv2d's: weight and bias uniform in +-1 / sqrt(inputs of an output), under every init.
TEST(HyperInitTest, ConvolutionsStartAsTorchs) {
  for (const auto init : {HyperConfig::zero_u, HyperConfig::normal_2e2}) {
    HyperConfig hyper = Hyper(init);
    hyper.set_condition(HyperConfig::weights);
    const auto values = InitialValues(hyper);
    EXPECT_EQ(values.count(kEmbedding), 0u);
    const std::string name = "hypermoe.weight_encoder.";
    for (const auto& [n, fan_in] : {std::pair("0", 25), {"1", 2}, {"2", 9}, {"3", 32}}) {
      const double bound = 1 / std::sqrt(fan_in);
      const at::Tensor weight = values.at(name + n + ".weight"),
                       bias = values.at(name + n + ".bias");
      ExpectUniform(weight, bound);
      EXPECT_LE(bias.abs().max().item<double>(), bound);
      EXPECT_GT(bias.abs().min().item<double>(), 0);
    }
  }
}

// The embeddings of some experts, as small as experts are at the start: all one expert's.
std::vector<at::Tensor> EmbeddingsOfSmallExperts(const WeightEncoder& encoder) {
  static const auto& matrices = *[] {
    auto* const both = new std::vector<at::Tensor>;
    for (const auto& shape : {std::vector<int64_t>{1, 720, 1920}, {1, 1920, 720}}) {
      both->push_back(at::empty(shape, at::kDouble));
      FillNormal(both->back(), RandomKey{5, both->size()}, 0.02);
    }
    return both;
  }();
  return {encoder.Encode(matrices[0], matrices[1]).detach().expand({kExperts, -1})};
}

// The mean square of Down times the width, over many seeds (the ten numbers of a layer embedding
// alone vary by 45 %): 1 keeps x at its scale.
double ScaleOfDown(const HyperConfig& hyper, int num_seeds) {
  double sum = 0;
  for (int seed = 1; seed <= num_seeds; ++seed) {
    std::vector<Parameter> parameters;
    ParameterFactory factory(static_cast<uint64_t>(seed), at::kDouble, &parameters);
    HyperGenerator generator(hyper, Model(), {0}, factory);
    if (generator.encoder() != nullptr)
      generator.SetExpertEmbeddings(EmbeddingsOfSmallExperts(*generator.encoder()));
    const at::Tensor k_MQ =
        hyper.condition() == HyperConfig::hidden
            ? generator.HiddenOfInput(
                  ParameterFactory(static_cast<uint64_t>(seed), at::kDouble, &parameters)
                      .Make("x", {32, kWidth}, Init::Normal(1)),
                  0)
            : generator.HiddenOfWeights(
                  generator.WeightsOfSelections(at::arange(kExperts).view({-1, 1})), 0);
    const HyperExperts made = generator.Generate(k_MQ, 0);
    ExpectZero(made.up_MAD);
    sum += made.down_MDA.square().mean().item<double>() * kWidth;
  }
  return sum / num_seeds;
}

TEST(HyperInitTest, ZeroUKeepsTheScaleOfWhatDownIsAppliedTo) {
  const std::vector<std::pair<const char*, std::function<void(HyperConfig&)>>> readings = {
      {"default", [](HyperConfig&) {}},
      {"sum", [](HyperConfig& h) { h.set_agg(HyperConfig::sum); }},
      {"selected", [](HyperConfig& h) { h.set_condition(HyperConfig::selected); }},
      {"linear k", [](HyperConfig& h) { h.set_k_act(HyperConfig::none); }},
      {"normalised k", [](HyperConfig& h) { h.set_k_norm(HyperConfig::layernorm); }},
      {"hidden", [](HyperConfig& h) { h.set_condition(HyperConfig::hidden); }},
      {"weights", [](HyperConfig& h) { h.set_condition(HyperConfig::weights); }},
      {"sum of weights", [](HyperConfig& h) {
         h.set_condition(HyperConfig::weights);
         h.set_agg(HyperConfig::sum);
       }}};
  for (const auto& [name, change] : readings) {
    HyperConfig hyper = Hyper(HyperConfig::zero_u);
    change(hyper);
    EXPECT_NEAR(ScaleOfDown(hyper, 100), 1, 0.12) << name;
  }
}

}  // namespace
}  // namespace hypermoe
