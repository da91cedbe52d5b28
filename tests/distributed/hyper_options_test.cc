// Every reading of the paper, in every execution and at every layout, against the literal equations
// on one rank.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

struct OptionCase {
  const char* name;
  int num_experts, top_k;
  std::function<void(ModelConfig&, HyperConfig&)> set;
  bool own_per_token = false;  // every token has a HyperExpert of its own
};

void LimitTo(int tokens_per_row, ModelConfig& model) {
  model.mutable_training_capacity()->set_mode(CapacityConfig::fixed_per_row);
  model.mutable_training_capacity()->set_tokens_per_row(tokens_per_row);
}

const std::vector<OptionCase>& Cases() {
  static const auto* cases = new std::vector<OptionCase>{
      {"top2", 6, 2, [](ModelConfig&, HyperConfig&) {}},
      {"top3_official_v1", 6, 3,
       [](ModelConfig& m, HyperConfig& h) {
         m.set_renormalize(true);
         h.set_agg(HyperConfig::sum);
         h.set_gen_bias(true);
         h.set_share(HyperConfig::stack);
         LimitTo(2, m);
       }},
      {"all_experts", 4, 4, [](ModelConfig&, HyperConfig& h) { h.set_gen_bias(true); }},
      {"all_experts_sum", 3, 3, [](ModelConfig&, HyperConfig& h) { h.set_agg(HyperConfig::sum); }},
      {"selected_own_generators", 6, 2,
       [](ModelConfig&, HyperConfig& h) {
         h.set_condition(HyperConfig::selected);
         h.set_agg(HyperConfig::sum);
         h.set_emb_scope(HyperConfig::model);
         h.set_share(HyperConfig::layer);
         h.set_gen_bias(true);
       }},
      {"selected_top1", 5, 1,
       [](ModelConfig& m, HyperConfig& h) {
         h.set_condition(HyperConfig::selected);
         h.set_emb_scope(HyperConfig::stack);
         h.set_sel_mlp_scope(HyperConfig::model);
         h.set_k_act(HyperConfig::none);
         LimitTo(2, m);
       }},
      {"top1_biases_norm_learned_scale", 6, 1,
       [](ModelConfig&, HyperConfig& h) {
         h.set_gen_bias(true);
         h.set_lin_bias(false);
         h.set_k_norm(HyperConfig::layernorm);
         h.set_scale(HyperConfig::learned);
       }},
      {"top1_gate_scale_skip", 6, 1,
       [](ModelConfig& m, HyperConfig& h) {
         h.set_scale(HyperConfig::gate);
         h.set_on_dropped(HyperConfig::skip);
         h.set_gen_bias(true);
         LimitTo(2, m);
       }},
      {"top2_gate_scale_skip", 6, 2,
       [](ModelConfig& m, HyperConfig& h) {
         h.set_scale(HyperConfig::gate);
         h.set_on_dropped(HyperConfig::skip);
         LimitTo(1, m);
       }},
      {"top2_learned_scale_skip", 4, 2,
       [](ModelConfig& m, HyperConfig& h) {
         h.set_scale(HyperConfig::learned);
         h.set_on_dropped(HyperConfig::skip);
         h.set_share(HyperConfig::layer);
         h.set_k_norm(HyperConfig::layernorm);
         m.set_activation(ModelConfig::gelu);
         LimitTo(1, m);
       }},
      // C(12, 3) = 220 selections are not generated unseen.
      {"many_selections", 12, 3,
       [](ModelConfig& m, HyperConfig& h) {
         m.set_activation(ModelConfig::relu);
         h.set_gen_bias(true);
         h.set_scale(HyperConfig::gate);
       }},
      {"hidden_top1", 5, 1,
       [](ModelConfig& m, HyperConfig& h) {
         h.set_condition(HyperConfig::hidden);
         h.set_on_dropped(HyperConfig::skip);
         LimitTo(2, m);
       },
       true},
      {"hidden_top2", 5, 2,
       [](ModelConfig&, HyperConfig& h) {
         h.set_condition(HyperConfig::hidden);
         h.set_gen_bias(true);
         h.set_share(HyperConfig::layer);
         h.set_lin_bias(false);
       },
       true},
      {"soft_top1", 5, 1,
       [](ModelConfig&, HyperConfig& h) {
         h.set_z(HyperConfig::one_minus_prob);
         h.set_scale(HyperConfig::learned);
       },
       true},
      {"soft_top3_sum", 6, 3,
       [](ModelConfig& m, HyperConfig& h) {
         h.set_z(HyperConfig::one_minus_prob);
         h.set_agg(HyperConfig::sum);
         h.set_scale(HyperConfig::gate);
         m.set_renormalize(true);
         LimitTo(2, m);
       },
       true},
      {"soft_single_expert", 1, 1,
       [](ModelConfig&, HyperConfig& h) { h.set_z(HyperConfig::one_minus_prob); }, true},
  };
  return *cases;
}

class HyperOptionsTest : public testing::TestWithParam<OptionCase> {};

TEST_P(HyperOptionsTest, ExecutionsEqualTheLiteralEquationsAtEveryLayout) {
  const OptionCase& options = GetParam();
  RunConfig config = TinyConfig(ModelConfig::hyper, options.num_experts, RuntimeConfig::float64);
  config.mutable_model()->set_top_k(options.top_k);
  options.set(*config.mutable_model(), *config.mutable_hyper());
  config.mutable_train()->set_batch_size(5);
  config.mutable_train()->set_micro_batches(2);
  config.mutable_hyper()->set_execution(HyperConfig::per_token);
  const Outcome reference = Compute(config, OneRankMesh());
  const bool limited = config.model().training_capacity().mode() != CapacityConfig::none;
  EXPECT_EQ(reference.dropped_LN.sum().item<int64_t>() > 0, limited);

  std::vector<HyperConfig::Execution> executions = {HyperConfig::per_token, HyperConfig::bilinear};
  if (!options.own_per_token) {
    executions.push_back(HyperConfig::source);
    executions.push_back(HyperConfig::owner);
  }
  for (const HyperConfig::Execution execution : executions) {
    config.mutable_hyper()->set_execution(execution);
    for (const int degree : Degrees()) {
      // Recomputation must not change a thing; at one degree is enough to see that.
      config.mutable_train()->set_recompute(degree == World()->size() ? TrainConfig::blocks
                                                                      : TrainConfig::nothing);
      ExpectEqual(Compute(config, ProcessMesh::Create(World(), degree)), reference, 1e-12,
                  HyperConfig::Execution_Name(execution) + ", degree " + std::to_string(degree));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Options, HyperOptionsTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace hypermoe
