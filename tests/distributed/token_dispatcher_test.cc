#include "parallel/token_dispatcher.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <ostream>

#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

// Which expert every token of every rank goes to: a function, so that each rank can work out what
// it must receive.
struct Scenario {
  const char* name;
  std::vector<int64_t> (*ids)(int rank, int64_t num_experts);
};

std::vector<int64_t> Balanced(int rank, int64_t num_experts) {
  std::vector<int64_t> ids;
  for (int64_t t = 0; t < 2 * num_experts; ++t) ids.push_back((t * 5 + rank) % num_experts);
  return ids;
}
std::vector<int64_t> OneExpertGetsAll(int /*rank*/, int64_t num_experts) {
  return std::vector<int64_t>(7, num_experts - 1);
}
std::vector<int64_t> FirstRankHasNoTokens(int rank, int64_t num_experts) {
  return rank == 0 ? std::vector<int64_t>{} : Balanced(rank, num_experts);
}
std::vector<int64_t> OnlyLastRankHasTokens(int rank, int64_t num_experts) {
  return rank + 1 < World()->size() ? std::vector<int64_t>{} : Balanced(rank, num_experts);
}
std::vector<int64_t> Ragged(int rank, int64_t num_experts) {
  std::vector<int64_t> ids;
  for (int64_t t = 0; t < 3 * rank + 1; ++t) ids.push_back((7 * t + 3 * rank) % num_experts);
  return ids;
}
std::vector<int64_t> NobodyHasTokens(int /*rank*/, int64_t /*num_experts*/) { return {}; }

constexpr Scenario kScenarios[] = {{"balanced", Balanced},
                                   {"one expert gets all", OneExpertGetsAll},
                                   {"the first rank has no tokens", FirstRankHasNoTokens},
                                   {"only the last rank has tokens", OnlyLastRankHasTokens},
                                   {"ragged", Ragged},
                                   {"nobody has tokens", NobodyHasTokens}};

constexpr int64_t kWidth = 3;

// Integers, different for every rank, token and column.
at::Tensor TokensOf(int rank, int64_t count) {
  return at::arange(count * kWidth, at::kDouble).view({count, kWidth}) + 1000 * (rank + 1);
}

at::Tensor UpstreamGradient(int rank, int64_t count) {
  return at::arange(count * kWidth, at::kDouble).view({count, kWidth}).remainder(11) + rank + 1;
}

// The tokens of all ranks for `expert`, by source rank, then in order; and how many there are.
at::Tensor RowsOfExpert(const Scenario& scenario, int64_t num_experts, int64_t expert,
                        at::Tensor (*values_of)(int, int64_t)) {
  std::vector<at::Tensor> rows = {at::empty({0, kWidth}, at::kDouble)};
  for (int rank = 0; rank < World()->size(); ++rank) {
    const std::vector<int64_t> ids = scenario.ids(rank, num_experts);
    const at::Tensor values = values_of(rank, static_cast<int64_t>(ids.size()));
    for (size_t t = 0; t < ids.size(); ++t) {
      if (ids[t] == expert) rows.push_back(values.narrow(0, static_cast<int64_t>(t), 1));
    }
  }
  return at::cat(rows);
}

class TokenDispatcherMpiTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUpScenario(const Scenario& scenario) {
    const std::vector<int64_t> ids = scenario.ids(rank_, GetParam());
    ids_T_ = at::tensor(ids, at::kLong);
    x_TD_ = TokensOf(rank_, ids_T_.numel()).set_requires_grad(true);
    gradient_TD_ = UpstreamGradient(rank_, ids_T_.numel());
    plan_ = dispatcher_.MakePlan(ids_T_);
  }

  at::Tensor Arrive() { return dispatcher_.Dispatch(dispatcher_.Permute(x_TD_, plan_), plan_); }
  at::Tensor Return(const at::Tensor& rows_RD) {
    return dispatcher_.Unpermute(dispatcher_.Combine(rows_RD, plan_), plan_);
  }

  const int rank_ = World()->rank();
  const std::shared_ptr<Communicator> expert_ = World()->Split("expert", 0, World()->rank());
  const TokenDispatcher dispatcher_{expert_, GetParam()};
  at::Tensor ids_T_, x_TD_, gradient_TD_;
  std::shared_ptr<const DispatchPlan> plan_;
};

TEST_P(TokenDispatcherMpiTest, IdentityExpertsGiveInputAndGradientBack) {
  for (const Scenario& scenario : kScenarios) {
    SCOPED_TRACE(scenario.name);
    SetUpScenario(scenario);
    const at::Tensor y_TD = Return(Arrive());
    EXPECT_TRUE(at::equal(y_TD, x_TD_));
    (y_TD * gradient_TD_).sum().backward();
    EXPECT_TRUE(at::equal(x_TD_.grad(), gradient_TD_));
  }
}

TEST_P(TokenDispatcherMpiTest, RowsArriveByExpertThenSourceThenOrder) {
  for (const Scenario& scenario : kScenarios) {
    SCOPED_TRACE(scenario.name);
    SetUpScenario(scenario);
    const ExpertRange local = dispatcher_.local_experts();
    std::vector<at::Tensor> expected = {at::empty({0, kWidth}, at::kDouble)};
    for (int64_t expert = local.begin; expert < local.end; ++expert) {
      expected.push_back(RowsOfExpert(scenario, GetParam(), expert, TokensOf));
      EXPECT_EQ(plan_->rows_per_local_expert.at(expert - local.begin), expected.back().size(0));
    }
    EXPECT_EQ(static_cast<int64_t>(plan_->rows_per_local_expert.size()), local.size());
    EXPECT_TRUE(at::equal(Arrive(), at::cat(expected)));
  }
}

// Expert e multiplies its rows by a trainable e + 1.
TEST_P(TokenDispatcherMpiTest, ExpertsSeeTheirTokensAndTheirGradients) {
  for (const Scenario& scenario : kScenarios) {
    SCOPED_TRACE(scenario.name);
    SetUpScenario(scenario);
    const ExpertRange local = dispatcher_.local_experts();
    const at::Tensor weights = at::arange(local.begin + 1, local.end + 1, at::kDouble)
                                   .view({-1, 1})
                                   .set_requires_grad(true);
    const at::Tensor counts_e = at::tensor(plan_->rows_per_local_expert, at::kLong);
    const at::Tensor y_TD = Return(Arrive() * weights.repeat_interleave(counts_e, 0));
    const at::Tensor factor_T1 = (ids_T_ + 1).view({-1, 1});
    EXPECT_TRUE(at::equal(y_TD, x_TD_ * factor_T1));
    (y_TD * gradient_TD_).sum().backward();
    EXPECT_TRUE(at::equal(x_TD_.grad(), gradient_TD_ * factor_T1));
    for (int64_t expert = local.begin; expert < local.end; ++expert) {
      const double expected = (RowsOfExpert(scenario, GetParam(), expert, TokensOf) *
                               RowsOfExpert(scenario, GetParam(), expert, UpstreamGradient))
                                  .sum()
                                  .item<double>();
      EXPECT_EQ(weights.grad().select(0, expert - local.begin).item<double>(), expected);
    }
  }
}

TEST_P(TokenDispatcherMpiTest, TrafficIsTheRowsReallySent) {
  for (const Scenario& scenario : kScenarios) {
    SCOPED_TRACE(scenario.name);
    SetUpScenario(scenario);
    const Traffic before = expert_->traffic(Collective::kAllToAll);
    (Return(Arrive()) * gradient_TD_).sum().backward();
    const Traffic after = expert_->traffic(Collective::kAllToAll);

    int64_t sent = 0, received = 0;
    for (int other = 0; other < World()->size(); ++other) {
      if (other == rank_) continue;
      const ExpertRange there = ExpertsOfRank(GetParam(), World()->size(), other);
      const ExpertRange here = dispatcher_.local_experts();
      for (int64_t id : scenario.ids(rank_, GetParam()))
        sent += id >= there.begin && id < there.end;
      for (int64_t id : scenario.ids(other, GetParam()))
        received += id >= here.begin && id < here.end;
    }
    // Dispatch and Combine, each forward and backward.
    EXPECT_EQ(after.bytes - before.bytes, 2 * (sent + received) * kWidth * 8);
    EXPECT_EQ(after.calls - before.calls, World()->size() > 1 ? 4 : 0);
    EXPECT_EQ(expert_->traffic(Collective::kAllReduce).calls, 0);
  }
}

// Autograd hands on an undefined gradient where it knows that one is zero; the exchange must take
// place all the same.
TEST_P(TokenDispatcherMpiTest, UndefinedGradientOnOneRankCountsAsZero) {
  SetUpScenario(kScenarios[0]);
  at::Tensor y_TD = Return(Arrive());
  if (rank_ == 0) y_TD = torch::autograd::UndefinedGrad().apply({y_TD})[0];
  (y_TD * gradient_TD_).sum().backward();
  if (rank_ != 0) {
    EXPECT_TRUE(at::equal(x_TD_.grad(), gradient_TD_));
  } else if (x_TD_.grad().defined()) {
    EXPECT_TRUE(at::equal(x_TD_.grad(), at::zeros_like(x_TD_)));
  }
}

TEST_P(TokenDispatcherMpiTest, InputsWithoutGradientBuildNoGraph) {
  SetUpScenario(kScenarios[0]);
  x_TD_ = x_TD_.detach();
  EXPECT_FALSE(Return(Arrive()).requires_grad());
}

// 2 experts leave ranks of 4 without any, 6 are uneven there.
INSTANTIATE_TEST_SUITE_P(Experts, TokenDispatcherMpiTest, testing::Values(1, 2, 5, 6, 8));

}  // namespace
}  // namespace hypermoe
