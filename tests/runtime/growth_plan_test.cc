#include "runtime/growth_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/keyed_random.h"
#include "runtime/config_fields.h"
#include "runtime/config_loader.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RunConfig Config(const std::vector<std::string>& overrides) {
  const auto config = LoadConfig("", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

RunConfig Hyper(int64_t experts, int64_t top_k, const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"model.kind=hyper",
                                        "model.num_experts=" + std::to_string(experts),
                                        "model.top_k=" + std::to_string(top_k)};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return Config(overrides);
}

// e of Eq. 6 by its definition, for a token with the given probabilities.
at::Tensor SelectionEmbedding(const HyperConfig& hyper, const at::Tensor& embedding_NE,
                              const at::Tensor& probs_N, int64_t top_k) {
  const int64_t experts = embedding_NE.size(0);
  std::vector<int64_t> order(static_cast<size_t>(experts));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return probs_N[a].item<double>() > probs_N[b].item<double>();
  });
  at::Tensor z_N = at::zeros({experts}, at::kDouble);
  for (int64_t i = 0; i < top_k; ++i) z_N[order[static_cast<size_t>(i)]] = 1.0;
  if (hyper.condition() == HyperConfig::unselected)
    z_N = at::ones({experts}, at::kDouble) - (hyper.z() == HyperConfig::binary ? z_N : probs_N);
  const double total = z_N.sum().item<double>();
  if (total < 1e-12) return at::zeros({embedding_NE.size(1)}, at::kDouble);
  const at::Tensor sum_E = (z_N.unsqueeze(1) * embedding_NE).sum(0);
  return hyper.agg() == HyperConfig::mean ? sum_E / total : sum_E;
}

at::Tensor Grown(const GrowthPlan& plan, const at::Tensor& embedding_NE) {
  return (embedding_NE * plan.embedding.own +
          embedding_NE.sum(0, /*keepdim=*/true) * plan.embedding.all)
      .repeat({plan.clones, 1});
}

// The largest difference of e over some tokens, with the correction or without.
double EmbeddingError(const RunConfig& from, const RunConfig& to, bool corrected) {
  const auto plan = PlanGrowth(from, to);
  EXPECT_TRUE(plan.ok()) << plan.status();
  const int64_t experts = from.model().num_experts();
  const at::Tensor embedding_NE = at::empty({experts, 4}, at::kDouble);
  FillNormal(embedding_NE, RandomKey{3, 0}, 1.0);
  const at::Tensor grown_NE =
      corrected ? Grown(*plan, embedding_NE) : embedding_NE.repeat({plan->clones, 1});
  double error = 0;
  for (uint64_t token = 0; token < 2 * static_cast<uint64_t>(experts); ++token) {
    const at::Tensor logits_N = at::empty({experts}, at::kDouble);
    FillNormal(logits_N, RandomKey{4, token}, 2.0);
    const at::Tensor probs_N = at::softmax(logits_N, 0);
    const at::Tensor before =
        SelectionEmbedding(from.hyper(), embedding_NE, probs_N, from.model().top_k());
    const at::Tensor after = SelectionEmbedding(
        to.hyper(), grown_NE, probs_N.repeat({plan->clones}) / static_cast<double>(plan->clones),
        to.model().top_k());
    error = std::max(error, (before - after).abs().max().item<double>());
  }
  return error;
}

TEST(GrowthPlanTest, KeepsTheSelectionEmbeddingForEveryReading) {
  struct Size {
    int64_t experts, top_k, clones, taken;
  };
  // top_k 1 with 1, some and all of the clones taken; top_k above 1 with all; every expert taken.
  const Size sizes[] = {{8, 1, 2, 1}, {8, 1, 8, 1}, {6, 1, 2, 1}, {6, 1, 3, 2}, {6, 1, 3, 3},
                        {1, 1, 4, 1}, {1, 1, 4, 4}, {5, 2, 3, 3}, {2, 2, 2, 2}};
  for (const char* condition : {"unselected", "selected"}) {
    for (const char* agg : {"mean", "sum"}) {
      for (const char* z : {"binary", "one_minus_prob"}) {
        if (std::string(condition) == "selected" && std::string(z) != "binary") continue;
        for (const Size& size : sizes) {
          const std::vector<std::string> reading = {std::string("hyper.condition=") + condition,
                                                    std::string("hyper.agg=") + agg,
                                                    std::string("hyper.z=") + z};
          const RunConfig from = Hyper(size.experts, size.top_k, reading),
                          to = Hyper(size.experts * size.clones, size.top_k * size.taken, reading);
          const std::string what = std::string(condition) + " " + agg + " " + z + " " +
                                   std::to_string(size.experts) + " x " +
                                   std::to_string(size.clones) + ", top " +
                                   std::to_string(size.top_k) + " x " + std::to_string(size.taken);
          EXPECT_LE(EmbeddingError(from, to, true), 1e-12) << what;
          const EmbeddingMix mix = PlanGrowth(from, to)->embedding;
          const bool empty = from.hyper().condition() == HyperConfig::unselected &&
                             size.top_k == size.experts && size.taken == size.clones;
          const bool needed = (mix.own != 1 || mix.all != 0) && !empty;
          if (needed) {
            EXPECT_GE(EmbeddingError(from, to, false), 1e-2) << what;
          }
          EXPECT_THAT(PlanGrowth(from, to)->changes, IsEmpty()) << what;
        }
      }
    }
  }
  // The case that no other trainer has: clones without the correction are another function.
  EXPECT_GE(EmbeddingError(Hyper(8, 1), Hyper(16, 1), false), 1e-2);
}

TEST(GrowthPlanTest, ScalesGatesThatAreNotRenormalised) {
  const auto scale = [](const RunConfig& from, const RunConfig& to) {
    return PlanGrowth(from, to)->gate_scale;
  };
  EXPECT_EQ(scale(Hyper(8, 1), Hyper(64, 1)), 8);
  EXPECT_EQ(scale(Hyper(8, 1), Hyper(64, 4)), 2);
  EXPECT_EQ(scale(Hyper(8, 2), Hyper(16, 4)), 1);
  EXPECT_EQ(
      scale(Hyper(8, 1, {"model.renormalize=true"}), Hyper(16, 1, {"model.renormalize=true"})), 1);
  const RunConfig dense = Config({"model.kind=dense"});
  EXPECT_EQ(scale(dense, Hyper(8, 2)), 4);
  EXPECT_EQ(scale(dense, Hyper(8, 2, {"model.renormalize=true"})), 1);
  const auto hyper_scale = [](const std::vector<std::string>& more) {
    return PlanGrowth(Hyper(8, 1, more), Hyper(32, 1, more))->hyper_scale;
  };
  EXPECT_EQ(hyper_scale({"hyper.scale=gate"}), 4);
  EXPECT_EQ(hyper_scale({"hyper.scale=gate", "model.renormalize=true"}), 1);
  EXPECT_EQ(hyper_scale({"hyper.scale=learned"}), 1);
}

TEST(GrowthPlanTest, SaysWhatWouldChangeTheFunction) {
  const auto changes = [](const RunConfig& from, const RunConfig& to) {
    const auto plan = PlanGrowth(from, to);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan->changes;
  };
  EXPECT_THAT(changes(Hyper(8, 2), Hyper(16, 2)), ElementsAre(HasSubstr("top_k")));
  EXPECT_THAT(changes(Hyper(8, 2), Hyper(16, 3)), ElementsAre(HasSubstr("top_k")));
  EXPECT_THAT(changes(Hyper(8, 2), Hyper(16, 4)), IsEmpty());
  EXPECT_THAT(changes(Hyper(8, 1), Hyper(16, 3)), ElementsAre(HasSubstr("top_k")));
  EXPECT_THAT(changes(Hyper(8, 1), Hyper(8, 1, {"model.renormalize=true"})),
              ElementsAre(HasSubstr("renormalize")));
  const std::vector<std::string> limited = {"model.evaluation_capacity.mode=factor_per_group",
                                            "model.evaluation_capacity.factor=1.5"};
  RunConfig from = Hyper(8, 1, limited), to = Hyper(16, 1, limited);
  EXPECT_THAT(changes(from, to), ElementsAre(HasSubstr("evaluation_capacity")));
  to = Hyper(8, 1, limited);
  EXPECT_TRUE(KeepExpertLimits(16, 1, to.mutable_model()));
  to.mutable_model()->set_num_experts(16);
  EXPECT_EQ(to.model().evaluation_capacity().factor(), 3);
  EXPECT_THAT(changes(from, to), IsEmpty());
  EXPECT_FALSE(KeepExpertLimits(16, 1, Hyper(8, 1).mutable_model()));
  const RunConfig moe = Config({"model.kind=moe"});
  EXPECT_THAT(changes(moe, Hyper(8, 1, {"hyper.init=off_small"})),
              ElementsAre(HasSubstr("hyper.init")));
  EXPECT_THAT(changes(moe, Hyper(8, 1)), IsEmpty());
}

TEST(GrowthPlanTest, RefusesWhatNoParametersFit) {
  const auto refusal = [](const RunConfig& from, const RunConfig& to) {
    const auto plan = PlanGrowth(from, to);
    EXPECT_EQ(ExitCodeOf(plan.status()), ExitCode::kConfig);
    return std::string(plan.status().message());
  };
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(12, 1)), HasSubstr("8, 16, 24"));
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(4, 1)), HasSubstr("multiple"));
  EXPECT_THAT(refusal(Hyper(8, 1), Config({"model.kind=moe"})), HasSubstr("model.kind"));
  EXPECT_THAT(refusal(Hyper(8, 1), Config({"model.kind=dense"})), HasSubstr("model.kind"));
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(8, 1, {"model.hidden_size=64"})),
              HasSubstr("model.hidden_size is 128"));
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(8, 1, {"hyper.agg=sum"})), HasSubstr("hyper.agg"));
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(8, 1, {"model.sparse_layers=1"})),
              HasSubstr("model.sparse_layers"));
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(8, 1, {"model.sequence_length=256"})),
              HasSubstr("model.sequence_length"));
  EXPECT_THAT(refusal(Hyper(2, 1), Hyper(4, 5)), HasSubstr("model.top_k"));
  EXPECT_THAT(refusal(Hyper(8, 1), Hyper(16, 1, {"hyper.baked=true"})), HasSubstr("hyper.baked"));
}

}  // namespace
}  // namespace hypermoe
