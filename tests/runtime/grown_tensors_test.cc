#include "runtime/grown_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/keyed_random.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/config_fields.h"
#include "runtime/config_overrides.h"
#include "runtime/trainer.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

using Changes = std::vector<std::string>;

// The tiny model with every field set, changed.
RunConfig Config(ModelConfig::Kind kind, int experts, const Changes& changes = {},
                 RuntimeConfig::Dtype dtype = RuntimeConfig::float64,
                 ModelConfig::Family family = ModelConfig::gpt2) {
  RunConfig config = TinyConfigOf(family, kind, experts, dtype);
  for (const std::string& change : changes) {
    const absl::Status status = ApplyOverride(change, &config);
    EXPECT_TRUE(status.ok()) << status;
  }
  FillDefaults(&config);
  return config;
}

// The parameters of a model, on one rank, as a source.
std::shared_ptr<const TensorSource> SourceOf(LanguageModel& model) {
  std::vector<NamedTensor> tensors;
  for (const Parameter& parameter : model.parameters()) {
    for (NamedTensor& view : GlobalViews(parameter, parameter.value))
      tensors.push_back(std::move(view));
  }
  return std::make_shared<TensorsInMemory>(tensors);
}

struct TestModel {
  explicit TestModel(const RunConfig& config)
      : mesh(OneRankMesh()), model(MakeModel(config, mesh)) {
    buffers = MakeFlatBuffers(model->parameters());
  }
  // Trained weights are not small, and not zero anywhere.
  void Randomize() {
    for (const Parameter& parameter : model->parameters()) {
      for (const NamedTensor& view : GlobalViews(parameter, parameter.value)) {
        const bool router = view.name.find(".router.") != std::string::npos;
        // A view may be transposed, and is filled in the order of its name's axes.
        const at::Tensor values = at::empty(view.tensor.sizes(), view.tensor.options());
        FillNormal(values, RandomKey{13, 0}.Derive(view.name), router ? 1.0 : 0.25);
        view.tensor.copy_(values);
      }
    }
    model->ParametersChanged();
  }
  at::Tensor View(const std::string& name) {
    for (const Parameter& parameter : model->parameters()) {
      for (const NamedTensor& view : GlobalViews(parameter, parameter.value)) {
        if (view.name == name) return view.tensor;
      }
    }
    ADD_FAILURE() << "no parameter " << name;
    return {};
  }

  ProcessMesh mesh;
  std::unique_ptr<LanguageModel> model;
  std::vector<FlatBuffer> buffers;
};

struct Result {
  at::Tensor logits;
  double loss = 0;
};

Result Evaluate(TestModel& model, const RunConfig& config) {
  const at::NoGradGuard no_grad;
  const int64_t rows = 6, positions = config.model().sequence_length();
  const at::Tensor ids = at::arange(rows * (positions + 1), at::kLong)
                             .mul(7919)
                             .remainder(config.model().vocab_size())
                             .view({rows, positions + 1});
  const Batch batch = {ids.narrow(1, 0, positions).contiguous(),
                       ids.narrow(1, 1, positions).contiguous(), at::arange(rows, at::kLong)};
  const ModelOutput output = model.model->Forward(batch, ForwardMode{});
  const double loss =
      CrossEntropy(output.logits_TV, batch.labels_BS, static_cast<double>(rows * positions))
          .item<double>();
  return {output.logits_TV.to(at::kDouble), loss};
}

// Differences against the largest logit, and of the losses.
struct Errors {
  double logits = 0, loss = 0;
};

// A randomized model of `from`, grown to `to`; `change` may spoil the plan.
Errors GrowthErrors(const RunConfig& from, const RunConfig& to,
                    const std::function<void(GrowthPlan*)>& change = nullptr) {
  TestModel source(from);
  source.Randomize();
  auto plan = PlanGrowth(from, to);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (change) change(&*plan);
  TestModel target(to);
  const GrownTensors tensors(SourceOf(*source.model), *plan, target.model->parameters(),
                             std::nullopt);
  const absl::Status filled =
      FillParameters(tensors, "source", to.model().num_experts(), target.buffers);
  EXPECT_TRUE(filled.ok()) << filled;
  target.model->ParametersChanged();
  const Result before = Evaluate(source, to), after = Evaluate(target, to);
  const double largest = before.logits.abs().max().item<double>();
  return {(before.logits - after.logits).abs().max().item<double>() / largest,
          std::abs(before.loss - after.loss)};
}

void ExpectSame(const RunConfig& from, const RunConfig& to, double tolerance,
                const std::string& what) {
  const Errors errors = GrowthErrors(from, to);
  EXPECT_LE(errors.logits, tolerance) << what;
  EXPECT_LE(errors.loss, tolerance) << what;
}

struct Growth {
  int from, to;
};
constexpr Growth kGrowths[] = {{8, 16}, {8, 64}, {6, 12}, {4, 12}};

TEST(GrowthTest, MoreExpertsComputeTheSame) {
  for (const ModelConfig::Kind kind :
       {ModelConfig::moe, ModelConfig::hyper, ModelConfig::moe_share, ModelConfig::adapter}) {
    const bool side = kind == ModelConfig::moe_share || kind == ModelConfig::adapter;
    for (const Growth& growth : kGrowths) {
      if (side && growth.to != 12) continue;
      const std::string what = ModelConfig::Kind_Name(kind) + " " + std::to_string(growth.from) +
                               " -> " + std::to_string(growth.to);
      ExpectSame(Config(kind, growth.from), Config(kind, growth.to), 1e-10, what);
      ExpectSame(Config(kind, growth.from, {}, RuntimeConfig::float32),
                 Config(kind, growth.to, {}, RuntimeConfig::float32), 1e-5, what + ", float32");
    }
  }
}

// A reading of the paper, and what has to be different in the larger model.
struct Reading {
  Changes both, larger;
};

TEST(GrowthTest, EveryReadingComputesTheSame) {
  const std::string bilinear = "hyper.execution=bilinear";
  const Reading readings[] = {
      {{"hyper.emb_scope=stack", "hyper.sel_mlp_scope=model"}, {}},
      {{"hyper.emb_scope=model", "hyper.agg=sum"}, {}},
      {{"hyper.agg=sum", "hyper.share=layer", "hyper.gen_bias=true"}, {}},
      {{"hyper.condition=selected", "hyper.k_norm=layernorm"}, {}},
      {{"hyper.condition=selected", "hyper.agg=sum", "hyper.k_act=none"}, {"model.top_k=2"}},
      {{"hyper.condition=hidden", bilinear, "hyper.scale=gate"}, {}},
      {{"hyper.z=one_minus_prob", bilinear}, {}},
      {{"hyper.z=one_minus_prob", bilinear, "hyper.agg=sum", "hyper.emb_scope=stack"}, {}},
      {{"hyper.z=one_minus_prob", bilinear, "model.top_k=2"}, {"model.top_k=4"}},
      {{"hyper.scale=gate", "hyper.lin_bias=false"}, {}},
      {{"hyper.scale=gate", "hyper.gen_bias=true"}, {"model.top_k=2"}},
      {{"hyper.scale=learned", "model.renormalize=true"}, {}},
      {{"hyper.scale=gate", "model.renormalize=true"}, {}},
      {{"model.router=noisy_topk", "model.top_k=2", "hyper.agg=sum"}, {"model.top_k=4"}},
      {{"model.router=noisy_topk", "model.top_k=3", "model.renormalize=true"}, {"model.top_k=6"}},
      {{"model.activation=relu", "hyper.on_dropped=skip",
        "model.evaluation_capacity.mode=fixed_per_row",
        "model.evaluation_capacity.tokens_per_row=2"},
       {}},
  };
  for (const Reading& reading : readings) {
    Changes larger = reading.both;
    larger.insert(larger.end(), reading.larger.begin(), reading.larger.end());
    const RunConfig from = Config(ModelConfig::hyper, 6, reading.both),
                    to = Config(ModelConfig::hyper, 12, larger);
    const std::string what = reading.both[0] + " " + reading.both.back();
    EXPECT_TRUE(PlanGrowth(from, to)->changes.empty()) << what;
    ExpectSame(from, to, 1e-10, what);
    const EmbeddingMix mix = PlanGrowth(from, to)->embedding;
    if (from.hyper().condition() == HyperConfig::hidden || (mix.own == 1 && mix.all == 0)) continue;
    EXPECT_GE(GrowthErrors(from, to,
                           [](GrowthPlan* plan) {
                             plan->embedding = {1, 0};
                           })
                  .logits,
              1e-5)
        << what;
  }
}

// What grow refuses unless it is told not to is really another function.
TEST(GrowthTest, MoreExpertsATokenWithoutTheirClonesAreAnotherFunction) {
  const RunConfig from = Config(ModelConfig::moe, 6, {"model.top_k=2"}),
                  to = Config(ModelConfig::moe, 12, {"model.top_k=2"});
  EXPECT_FALSE(PlanGrowth(from, to)->changes.empty());
  EXPECT_GE(GrowthErrors(from, to).logits, 1e-4);
}

// Clones have the embedding of their original, and all clones of what is taken are taken; with sum,
// twice as many must add up to the same.
TEST(GrowthTest, EmbeddingsOfWeightsFollowTheirExperts) {
  const Changes sizes = {"model.hidden_size=720",   "model.ffn_size=1920",
                         "model.num_layers=1",      "hyper.expert_embedding_dim=128",
                         "hyper.condition=weights", "hyper.agg=sum",
                         "model.sparse_layers=0"};
  Changes larger = sizes;
  larger.push_back("model.top_k=2");
  const RunConfig from = Config(ModelConfig::hyper, 2, sizes),
                  to = Config(ModelConfig::hyper, 4, larger);
  EXPECT_TRUE(PlanGrowth(from, to)->changes.empty());
  ExpectSame(from, to, 1e-10, "weights");
  const auto unscaled = [](GrowthPlan* plan) { plan->embedding.own = 1; };
  EXPECT_GE(GrowthErrors(from, to, unscaled).logits, 1e-6);
  // One choice among clones whose last matrix is doubled.
  const auto other = PlanGrowth(from, Config(ModelConfig::hyper, 4, sizes));
  ASSERT_EQ(other->changes.size(), 1u);
  EXPECT_THAT(other->changes[0], HasSubstr("unless model.top_k is 2"));
  EXPECT_EQ(RecipeOf(*other, "hypermoe.weight_encoder.3.weight").factor, 1);
}

TEST(GrowthTest, WithoutACorrectionTheyDoNot) {
  const RunConfig from = Config(ModelConfig::hyper, 8), to = Config(ModelConfig::hyper, 16);
  const auto no_mix = [](GrowthPlan* plan) { plan->embedding = {1, 0}; };
  EXPECT_GE(GrowthErrors(from, to, no_mix).logits, 1e-4);
  const auto no_scale = [](GrowthPlan* plan) { plan->gate_scale = 1; };
  EXPECT_GE(GrowthErrors(from, to, no_scale).logits, 1e-4);
  EXPECT_GE(GrowthErrors(from, to, no_scale).loss, 1e-6);
}

TEST(GrowthTest, ADenseModelBecomesAnyKind) {
  const RunConfig dense = Config(ModelConfig::dense, 8);
  for (const ModelConfig::Kind kind :
       {ModelConfig::moe, ModelConfig::hyper, ModelConfig::moe_share, ModelConfig::adapter}) {
    ExpectSame(dense, Config(kind, 8), 1e-10, ModelConfig::Kind_Name(kind));
    ExpectSame(dense, Config(kind, 5), 1e-10, ModelConfig::Kind_Name(kind));
    ExpectSame(dense, Config(kind, 8, {"model.top_k=2", "model.router=noisy_topk"}), 1e-10,
               ModelConfig::Kind_Name(kind));
    ExpectSame(dense, Config(kind, 8, {"model.top_k=3", "model.renormalize=true"}), 1e-10,
               ModelConfig::Kind_Name(kind));
  }
}

TEST(GrowthTest, AMoeGetsWhatAnotherKindAddsAndMoreExpertsAtOnce) {
  for (const ModelConfig::Kind kind :
       {ModelConfig::hyper, ModelConfig::moe_share, ModelConfig::adapter}) {
    ExpectSame(Config(ModelConfig::moe, 6), Config(kind, 6), 1e-10, ModelConfig::Kind_Name(kind));
    ExpectSame(Config(ModelConfig::moe, 6), Config(kind, 12), 1e-10, ModelConfig::Kind_Name(kind));
  }
}

TEST(GrowthTest, ASwitchTransformerGrowsAsWell) {
  const auto config = [](ModelConfig::Kind kind, int experts) {
    return Config(kind, experts, {}, RuntimeConfig::float64, ModelConfig::switch_transformers);
  };
  for (const ModelConfig::Kind kind :
       {ModelConfig::moe, ModelConfig::hyper, ModelConfig::moe_share, ModelConfig::adapter}) {
    ExpectSame(config(ModelConfig::dense, 1), config(kind, 4), 1e-10, "dense");
    ExpectSame(config(ModelConfig::moe, 4), config(kind, 4), 1e-10, "moe");
    ExpectSame(config(ModelConfig::moe, 4), config(kind, 12), 1e-10, "moe, more experts");
    ExpectSame(config(kind, 4), config(kind, 8), 1e-10, ModelConfig::Kind_Name(kind));
  }
}

TEST(GrowthTest, KeepsTheFirstPositionsOfAShorterModel) {
  TestModel source(Config(ModelConfig::moe, 4));
  const RunConfig to = Config(ModelConfig::moe, 4, {"model.sequence_length=5"});
  ExpectSame(Config(ModelConfig::moe, 4), to, 1e-10, "5 positions");
}

TEST(GrowthTest, TiedClonesDropTheSameTokensUnderALimit) {
  const Changes per_row = {"model.evaluation_capacity.mode=fixed_per_row",
                           "model.evaluation_capacity.tokens_per_row=2"};
  ExpectSame(Config(ModelConfig::hyper, 4, per_row), Config(ModelConfig::hyper, 8, per_row), 1e-10,
             "fixed_per_row");
  const Changes per_group = {"model.evaluation_capacity.mode=factor_per_group",
                             "model.evaluation_capacity.factor=1",
                             "model.evaluation_capacity.group_rows=3"};
  const RunConfig from = Config(ModelConfig::hyper, 4, per_group);
  RunConfig to = from;
  KeepExpertLimits(8, 1, to.mutable_model());
  to.mutable_model()->set_num_experts(8);
  ExpectSame(from, to, 1e-10, "factor_per_group");
}

TEST(GrowthTest, ATensorThatIsMissingOrTooManyIsNamed) {
  const RunConfig from = Config(ModelConfig::moe, 4), to = Config(ModelConfig::moe, 8);
  TestModel source(from), target(to);
  std::vector<NamedTensor> tensors;
  for (const Parameter& parameter : source.model->parameters()) {
    for (const NamedTensor& view : GlobalViews(parameter, parameter.value)) {
      if (view.name != "h.2.mlp.experts.expert_3.c_fc.weight") tensors.push_back(view);
    }
  }
  tensors.push_back({"h.7.ln_1.weight", at::full({3}, 1.0)});
  const GrownTensors grown(std::make_shared<TensorsInMemory>(tensors), *PlanGrowth(from, to),
                           target.model->parameters(), std::nullopt);
  const absl::Status status = FillParameters(grown, "the source", 8, target.buffers);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
  for (const char* name : {"h.2.mlp.experts.expert_3.c_fc.weight",
                           "h.2.mlp.experts.expert_7.c_fc.weight", "h.7.ln_1.weight"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

// Moments, which are made up here, as Adam of the target would have them.
TEST(GrowthTest, CarriesMomentsByTheChainRule) {
  const RunConfig from = Config(ModelConfig::hyper, 4), to = Config(ModelConfig::hyper, 8);
  TestModel source(from), target(to);
  source.Randomize();
  std::vector<NamedTensor> tensors;
  for (const Parameter& parameter : source.model->parameters()) {
    for (const NamedTensor& view : GlobalViews(parameter, parameter.value)) {
      tensors.push_back({"optimizer.first_moment." + view.name, view.tensor});
      tensors.push_back({"optimizer.second_moment." + view.name, view.tensor.square()});
    }
  }
  const auto moments = std::make_shared<TensorsInMemory>(tensors);
  const GrowthPlan plan = *PlanGrowth(from, to);
  const auto read = [&](AdamW::Moment moment, const std::string& name) {
    return *GrownTensors(moments, plan, target.model->parameters(), moment).Read(name);
  };
  const auto expect = [&](const std::string& name, const std::string& of, double factor) {
    const at::Tensor value = source.View(of) * factor;
    EXPECT_TRUE(read(AdamW::Moment::kFirst, name).equal(value)) << name;
    EXPECT_TRUE(read(AdamW::Moment::kSecond, name).equal(value.square())) << name;
  };
  expect("wte.weight", "wte.weight", 1);
  expect("h.0.mlp.experts.expert_6.c_fc.weight", "h.0.mlp.experts.expert_2.c_fc.weight", 1);
  // Of values times 2.
  expect("h.0.mlp.experts.expert_6.c_proj.weight", "h.0.mlp.experts.expert_2.c_proj.weight", 0.5);
  expect("h.2.mlp.experts.expert_3.c_proj.bias", "h.2.mlp.experts.expert_3.c_proj.bias", 0.5);
  expect("hypermoe.generator.model.up.weight", "hypermoe.generator.model.up.weight", 1);
  const std::string gate = "h.0.mlp.router.w_gate";
  EXPECT_TRUE(read(AdamW::Moment::kFirst, gate).equal(source.View(gate).repeat({1, 2})));
  // The embeddings are mixed: what their moments would be is not known.
  const std::string embedding = "hypermoe.expert_embedding.0.weight";
  EXPECT_EQ(read(AdamW::Moment::kFirst, embedding).abs().sum().item<double>(), 0);
  EXPECT_EQ(read(AdamW::Moment::kFirst, embedding).size(0), 8);
}

TEST(GrowthTest, ClonesSeparateInTraining) {
  const RunConfig from = Config(ModelConfig::hyper, 4), to = Config(ModelConfig::hyper, 8);
  Trainer source(from, OneRankMesh(), TinyRows(from));
  for (int64_t step = 0; step < 10; ++step) source.TrainStep(step);
  const GrowthPlan plan = *PlanGrowth(from, to);
  for (const double jitter : {0.0, kCloneJitter}) {
    Trainer trainer(to, OneRankMesh(), TinyRows(to));
    const GrownTensors tensors(SourceOf(source.model()), plan, trainer.model().parameters(),
                               std::nullopt);
    ASSERT_TRUE(FillParameters(tensors, "source", 8, trainer.buffers()).ok());
    SeparateClones(plan, jitter, 3, trainer.model().parameters());
    trainer.model().ParametersChanged();
    at::Tensor tokens_LN = trainer.TrainStep(0).tokens_LN;
    // Tied, the originals get all, and their clones nothing to learn from.
    EXPECT_EQ(tokens_LN.narrow(1, 4, 4).sum().item<int64_t>() > 0, jitter > 0);
    if (jitter == 0) continue;
    for (int64_t step = 1; step < 10; ++step)
      tokens_LN = tokens_LN + trainer.TrainStep(step).tokens_LN;
    // Of experts that are used at all.
    const NamedTensors values = Values(trainer);
    int used = 0, split = 0;
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (int64_t e = 0; e < 4; ++e) {
        const int64_t original = tokens_LN[layer][e].item<int64_t>(),
                      clone = tokens_LN[layer][e + 4].item<int64_t>();
        if (original + clone >= 100) ++used;
        if (original == 0 || clone == 0) continue;
        ++split;
        const std::string prefix = "h." + std::to_string(2 * layer) + ".mlp.experts.expert_";
        EXPECT_FALSE(values.at(prefix + std::to_string(e) + ".c_fc.weight")
                         .equal(values.at(prefix + std::to_string(e + 4) + ".c_fc.weight")));
      }
    }
    EXPECT_GE(2 * split, used) << tokens_LN;
    EXPECT_GE(split, 2) << tokens_LN;
  }
}

TEST(GrowthTest, JitterIsKeyedByLayerAndExpert) {
  const RunConfig to = Config(ModelConfig::moe, 8);
  const GrowthPlan plan = *PlanGrowth(Config(ModelConfig::moe, 4), to);
  TestModel a(to), b(to), c(to), untouched(to);
  SeparateClones(plan, 0.01, 3, a.model->parameters());
  SeparateClones(plan, 0.01, 3, b.model->parameters());
  SeparateClones(plan, 0.01, 4, c.model->parameters());
  const std::string gate = "h.0.mlp.router.w_gate";
  EXPECT_TRUE(a.View(gate).equal(b.View(gate)));
  EXPECT_FALSE(a.View(gate).equal(c.View(gate)));
  EXPECT_TRUE(a.View("wte.weight").equal(untouched.View("wte.weight")));
  const at::Tensor noise = a.View(gate) - untouched.View(gate);
  EXPECT_FALSE(
      noise.equal(a.View("h.2.mlp.router.w_gate") - untouched.View("h.2.mlp.router.w_gate")));
  const double rms = untouched.View(gate).square().mean().sqrt().item<double>();
  EXPECT_NEAR(noise.square().mean().sqrt().item<double>(), 0.01 * rms, 0.003 * rms);
  // Of a router of zeros, against inputs of unit scale.
  untouched.View(gate).zero_();
  SeparateClones(plan, 0.01, 3, untouched.model->parameters());
  EXPECT_NEAR(untouched.View(gate).square().mean().sqrt().item<double>(), 0.01 / 4, 0.003 / 4);
  // Nothing has been cloned.
  SeparateClones(*PlanGrowth(to, to), 0.01, 3, b.model->parameters());
  EXPECT_TRUE(a.View(gate).equal(b.View(gate)));
}

}  // namespace
}  // namespace hypermoe
