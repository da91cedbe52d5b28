#include "kernels/grouped_ffn.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/grouped_gemm_ffn.h"
#include "kernels/keyed_dropout.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

// Small networks are worked on side by side if there are groups for all threads, otherwise one
// after the other.
constexpr int kSideBySide = 1, kInTurn = 9;

// Of rows whose tokens have uneven ids.
InnerDropout Dropout(double probability, int64_t rows) {
  return {probability, RandomKey{4, 0}.Derive("inner"), at::arange(rows, at::kLong).mul(7).add(3)};
}

struct Case {
  std::vector<int64_t> rows;
  Activation activation;
  bool bias;
  double dropout = 0;
};

class GroupedFfnTest : public testing::TestWithParam<std::tuple<Case, int>> {
 protected:
  static const Case& GetCase() { return std::get<0>(GetParam()); }
  std::vector<at::Tensor> Inputs() const {
    const auto groups = static_cast<int64_t>(GetCase().rows.size());
    int64_t total = 0;
    for (const int64_t rows : GetCase().rows) total += rows;
    return {Leaf({total, 3}, "x"), Leaf({groups, 3, 5}, "up"), Leaf({groups, 5}, "up bias"),
            Leaf({groups, 5, 3}, "down"), Leaf({groups, 3}, "down bias")};
  }
  at::Tensor Run(const std::vector<at::Tensor>& in) const {
    const ThreadsScope threads(std::get<1>(GetParam()));
    const bool bias = GetCase().bias;
    const GroupedFfnWeights weights = {in[1], bias ? in[2] : at::Tensor(), in[3],
                                       bias ? in[4] : at::Tensor()};
    return GroupedFfn(in[0], GetCase().rows, weights, GetCase().activation,
                      Dropout(GetCase().dropout, in[0].size(0)));
  }
};

at::Tensor PlainActivation(const at::Tensor& x, Activation activation) {
  if (activation == Activation::kRelu) return at::relu(x);
  if (activation == Activation::kSilu) return x * at::sigmoid(x);
  if (activation == Activation::kGelu) return x * 0.5 * (at::erf(x / std::numbers::sqrt2) + 1);
  return x * 0.5 * (at::tanh((x + x.pow(3) * 0.044715) * std::sqrt(2 / std::numbers::pi)) + 1);
}

TEST_P(GroupedFfnTest, EqualsTheNetworksOneByOne) {
  const std::vector<at::Tensor> in = Inputs();
  std::vector<at::Tensor> expected;
  int64_t begin = 0;
  for (size_t g = 0; g < GetCase().rows.size(); ++g) {
    const auto group = static_cast<int64_t>(g);
    at::Tensor hidden = at::matmul(in[0].narrow(0, begin, GetCase().rows[g]), in[1][group]);
    if (GetCase().bias) hidden = hidden + in[2][group];
    const InnerDropout dropout = Dropout(GetCase().dropout, in[0].size(0));
    hidden = KeyedDropout(PlainActivation(hidden, GetCase().activation), dropout.probability,
                          dropout.key, dropout.token_ids_R.narrow(0, begin, GetCase().rows[g]));
    at::Tensor y = at::matmul(hidden, in[3][group]);
    if (GetCase().bias) y = y + in[4][group];
    expected.push_back(y);
    begin += GetCase().rows[g];
  }
  const at::Tensor y = Run(in), plain = at::cat(expected);
  EXPECT_TRUE(y.allclose(plain, 1e-13, 1e-13));
}

TEST_P(GroupedFfnTest, GradientsMatchDifferences) {
  const std::vector<at::Tensor> in = Inputs();
  if (in[0].size(0) == 0) {
    // Every weight still gets a gradient: zero.
    Run(in).sum().backward();
    for (size_t i : {1, 3}) {
      ASSERT_TRUE(in[i].grad().defined());
      EXPECT_EQ(in[i].grad().abs().max().item<double>(), 0);
    }
    return;
  }
  EXPECT_TRUE(GradientsMatchDifferences(
      [this](const std::vector<at::Tensor>& leaves) { return Run(leaves); }, in));
}

INSTANTIATE_TEST_SUITE_P(
    Groups, GroupedFfnTest,
    testing::Combine(testing::Values(Case{{4}, Activation::kGeluTanh, true},
                                     Case{{2, 0, 3}, Activation::kGeluTanh, true},
                                     Case{{2, 0, 3}, Activation::kGelu, true},
                                     Case{{0, 5, 0}, Activation::kRelu, true},
                                     Case{{3, 1, 2}, Activation::kRelu, false},
                                     Case{{2, 0, 3}, Activation::kSilu, true},
                                     Case{{2, 0, 3}, Activation::kRelu, false, 0.3},
                                     Case{{3, 1, 2}, Activation::kGelu, true, 0.5},
                                     Case{{0, 0}, Activation::kRelu, false, 0.3},
                                     Case{{0, 0}, Activation::kGeluTanh, true},
                                     Case{{0, 0}, Activation::kRelu, false}),
                     testing::Values(kSideBySide, kInTurn)));

// Output and gradients for groups that are cut into several pieces, gradients of matrices added in
// place.
struct Widths {
  int64_t outer, inner;
};
std::vector<at::Tensor> RunLarge(int threads, const std::vector<int64_t>& rows, Widths widths,
                                 at::ScalarType weights, at::ScalarType activations,
                                 double dropout = 0) {
  const auto [d, f] = widths;
  const auto groups = static_cast<int64_t>(rows.size());
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  const ThreadsScope scope(threads);
  std::vector<at::Tensor> leaves;
  for (const auto& [shape, name] : {std::pair(std::vector<int64_t>{groups, d, f}, "up"),
                                    {{groups, f}, "up bias"},
                                    {{groups, f, d}, "down"},
                                    {{groups, d}, "down bias"}}) {
    leaves.push_back(Leaf(shape, name, weights));
    if (shape.size() == 3) leaves.back().mutable_grad() = at::ones_like(leaves.back().detach());
  }
  leaves.push_back(Leaf({total, d}, "x", activations));
  const at::Tensor y = GroupedFfn(leaves[4], rows, {leaves[0], leaves[1], leaves[2], leaves[3]},
                                  Activation::kGeluTanh, Dropout(dropout, total));
  y.backward(Random({total, d}, "grad", activations));
  std::vector<at::Tensor> results = {y.detach()};
  for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

// Sizes that kernels/small_gemm.h multiplies in float32, and others, which LibTorch does.
constexpr Widths kSmallGemm = {32, 48}, kLibrary = {24, 40};
// Groups of which one is larger than a thread's share, and some that up to three threads take whole
// in backward.
const std::vector<int64_t> kUneven = {300, 0, 600, 20},
                           kEven = {200, 190, 0, 180, 200, 1, 160, 200, 129};

class SmallFfnTest : public testing::TestWithParam<std::vector<int64_t>> {};
INSTANTIATE_TEST_SUITE_P(Groups, SmallFfnTest, testing::Values(kUneven, kEven));

TEST_P(SmallFfnTest, EqualsGroupsInTurn) {
  for (const auto& [weights, activations, tolerance] : {std::tuple(at::kDouble, at::kDouble, 1e-13),
                                                        {at::kFloat, at::kFloat, 1e-5},
                                                        {at::kFloat, at::kBFloat16, 2e-2}}) {
    for (const auto& [widths, dropout] :
         {std::pair(kSmallGemm, 0.0), {kLibrary, 0.0}, {kSmallGemm, 0.3}, {kLibrary, 0.3}}) {
      const auto expected = RunLarge(kInTurn, GetParam(), widths, weights, activations, dropout),
                 actual = RunLarge(kSideBySide, GetParam(), widths, weights, activations, dropout);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(actual[i].scalar_type(), expected[i].scalar_type());
        EXPECT_LE(RelativeError(actual[i], expected[i]), tolerance) << widths.outer << ", " << i;
      }
    }
  }
}

// Whichever thread takes which piece.
TEST_P(SmallFfnTest, SameBitsEveryTime) {
  for (const auto activations : {at::kFloat, at::kBFloat16}) {
    for (const Widths widths : {kSmallGemm, kLibrary}) {
      const auto first = RunLarge(3, GetParam(), widths, at::kFloat, activations);
      for (int repetition = 0; repetition < 10; ++repetition) {
        const auto again = RunLarge(3, GetParam(), widths, at::kFloat, activations);
        for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(again[i].equal(first[i])) << i;
      }
    }
  }
}

// The way of GPUs, by its CPU definition, beside the groups in turn.
class GroupedGemmFfnTest : public testing::TestWithParam<std::tuple<Activation, bool, double>> {
 protected:
  // Output, then the gradients of x and all weights; matrices have gradients already.
  template <typename Ffn>
  static std::vector<at::Tensor> Run(const Ffn& ffn, const std::vector<int64_t>& rows,
                                     at::ScalarType dtype) {
    const auto [activation, bias, dropout] = GetParam();
    const auto groups = static_cast<int64_t>(rows.size());
    const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
    std::vector<at::Tensor> leaves = {Leaf({total, 16}, "x", dtype), Leaf({groups, 16, 24}, "up"),
                                      Leaf({groups, 24, 16}, "down")};
    if (bias) {
      leaves.push_back(Leaf({groups, 24}, "up bias"));
      leaves.push_back(Leaf({groups, 16}, "down bias"));
    }
    for (const size_t i : {1, 2}) {
      leaves[i].mutable_grad() = at::ones_like(leaves[i].detach());
    }
    const at::Tensor none;
    const at::Tensor y = ffn(
        leaves[0], rows,
        GroupedFfnWeights{leaves[1], bias ? leaves[3] : none, leaves[2], bias ? leaves[4] : none},
        activation, Dropout(dropout, total));
    y.backward(Random({total, 16}, "grad", dtype));
    std::vector<at::Tensor> results = {y.detach()};
    for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
    return results;
  }
};

TEST_P(GroupedGemmFfnTest, EqualsGroupsInTurn) {
  const ThreadsScope in_turn(kInTurn);
  for (const auto& rows : {std::vector<int64_t>{5, 0, 9, 1}, {0, 0, 7}, {3}, {0, 12, 0}}) {
    const auto expected = Run(GroupedFfn, rows, at::kDouble);
    for (const auto& [dtype, tolerance] : {std::pair(at::kFloat, 1e-5), {at::kBFloat16, 3e-2}}) {
      const auto actual = Run(GroupedGemmFfn, rows, dtype);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(actual[i].scalar_type(), i < 2 ? dtype : at::kDouble);
        // A gradient through ReLU jumps where rounding moves its input across zero.
        const bool jumps = dtype == at::kBFloat16 && std::get<0>(GetParam()) == Activation::kRelu;
        EXPECT_LE(RelativeError(actual[i], expected[i]), jumps ? 0.15 : tolerance)
            << i << ", " << dtype;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GroupedGemmFfnTest,
                         testing::Combine(testing::Values(Activation::kGeluTanh, Activation::kGelu,
                                                          Activation::kRelu, Activation::kSilu),
                                          testing::Bool(), testing::Values(0.0, 0.3)));

// Rows in another order, in other groups of the same weights, and of other neighbours.
TEST(InnerDropoutTest, FollowsTheToken) {
  const at::Tensor x = Random({8, 3}, "x"), one_up = Random({1, 3, 5}, "up"),
                   one_down = Random({1, 5, 3}, "down");
  const GroupedFfnWeights one = {one_up, {}, one_down, {}};
  const GroupedFfnWeights two = {one_up.expand({2, 3, 5}), {}, one_down.expand({2, 5, 3}), {}};
  const InnerDropout dropout = Dropout(0.5, 8);
  const at::Tensor y = GroupedFfn(x, {8}, one, Activation::kGelu, dropout);
  const at::Tensor order = at::tensor({6, 1, 7, 0, 2}, at::kLong);
  InnerDropout moved = dropout;
  moved.token_ids_R = dropout.token_ids_R.index_select(0, order);
  for (const int threads : {kSideBySide, kInTurn}) {
    const ThreadsScope scope(threads);
    const at::Tensor y_moved =
        GroupedFfn(x.index_select(0, order), {3, 2}, two, Activation::kGelu, moved);
    EXPECT_TRUE(y_moved.allclose(y.index_select(0, order), 1e-13, 1e-13));
  }
  // It does act, on tokens not alike, and not at all with probability 0.
  const at::Tensor plain = GroupedFfn(x, {8}, one, Activation::kGelu);
  EXPECT_FALSE(y.allclose(plain, 0.1, 0.1));
  EXPECT_TRUE(GroupedFfn(x, {8}, one, Activation::kGelu, {0, RandomKey{4, 0}, {}}).equal(plain));
}

TEST(InnerDropoutTest, DroppedElementsAreZero) {
  // The second matrix shows every element of the first's result.
  const at::Tensor up = Random({1, 4, 6}, "up"), down = at::eye(6).to(at::kDouble).unsqueeze(0);
  const at::Tensor x = Random({50, 4}, "x");
  for (const int threads : {kSideBySide, kInTurn}) {
    const ThreadsScope scope(threads);
    const at::Tensor all = GroupedFfn(x, {50}, {up, {}, down, {}}, Activation::kGelu),
                     kept = GroupedFfn(x, {50}, {up, {}, down, {}}, Activation::kGelu,
                                       Dropout(0.25, 50));
    const at::Tensor dropped = kept.eq(0);
    EXPECT_NEAR(dropped.to(at::kDouble).mean().item<double>(), 0.25, 0.1);
    EXPECT_TRUE(kept.allclose((all / 0.75).masked_fill(dropped, 0), 1e-13, 1e-13));
  }
}

TEST(InnerDropoutTest, IdsThatDoNotFitAreRefused) {
  const GroupedFfnWeights weights = {Random({3, 5}, "a"), {}, Random({5, 3}, "b"), {}};
  const auto run = [&](const InnerDropout& dropout) {
    return GroupedFfn(Random({4, 3}, "x"), {4}, weights, Activation::kRelu, dropout);
  };
  EXPECT_THROW(run({0.3, RandomKey{4, 0}, {}}), c10::Error);
  EXPECT_THROW(run(Dropout(0.3, 2)), c10::Error);
  EXPECT_THROW(run(Dropout(1.0, 4)), c10::Error);
  EXPECT_THROW(run(Dropout(-0.1, 4)), c10::Error);
}

TEST(GroupedFfnShapesTest, RowsThatDoNotAddUpAreRefused) {
  const GroupedFfnWeights weights = {Random({2, 3, 5}, "a"), {}, Random({2, 5, 3}, "b"), {}};
  EXPECT_THROW(GroupedFfn(Random({4, 3}, "x"), {2, 1}, weights, Activation::kRelu), c10::Error);
  EXPECT_THROW(GroupedFfn(Random({4, 3}, "x"), {4}, weights, Activation::kRelu), c10::Error);
}

}  // namespace
}  // namespace hypermoe
