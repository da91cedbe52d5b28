#include "kernels/grouped_ffn.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string>

#include "kernels/keyed_random.h"
#include "tests/support/gradient_check.h"

namespace hypermoe {
namespace {

at::Tensor Random(at::IntArrayRef shape, const std::string& name) {
  at::Tensor tensor = at::empty(shape, at::kDouble);
  FillNormal(tensor, RandomKey{1, 0}.Derive(name), 1.0);
  return tensor.set_requires_grad(true);
}

struct Case {
  std::vector<int64_t> rows;
  Activation activation;
  bool bias;
};

class GroupedFfnTest : public testing::TestWithParam<Case> {
 protected:
  std::vector<at::Tensor> Inputs() const {
    const auto groups = static_cast<int64_t>(GetParam().rows.size());
    int64_t total = 0;
    for (const int64_t rows : GetParam().rows) total += rows;
    return {Random({total, 3}, "x"), Random({groups, 3, 5}, "up"), Random({groups, 5}, "up bias"),
            Random({groups, 5, 3}, "down"), Random({groups, 3}, "down bias")};
  }
  at::Tensor Run(const std::vector<at::Tensor>& in) const {
    const bool bias = GetParam().bias;
    const GroupedFfnWeights weights = {in[1], bias ? in[2] : at::Tensor(), in[3],
                                       bias ? in[4] : at::Tensor()};
    return GroupedFfn(in[0], GetParam().rows, weights, GetParam().activation);
  }
};

at::Tensor PlainActivation(const at::Tensor& x, Activation activation) {
  if (activation == Activation::kRelu) return at::relu(x);
  if (activation == Activation::kGelu) return x * 0.5 * (at::erf(x / std::numbers::sqrt2) + 1);
  return x * 0.5 * (at::tanh((x + x.pow(3) * 0.044715) * std::sqrt(2 / std::numbers::pi)) + 1);
}

TEST_P(GroupedFfnTest, EqualsTheNetworksOneByOne) {
  const std::vector<at::Tensor> in = Inputs();
  std::vector<at::Tensor> expected;
  int64_t begin = 0;
  for (size_t g = 0; g < GetParam().rows.size(); ++g) {
    const auto group = static_cast<int64_t>(g);
    at::Tensor hidden = at::matmul(in[0].narrow(0, begin, GetParam().rows[g]), in[1][group]);
    if (GetParam().bias) hidden = hidden + in[2][group];
    at::Tensor y = at::matmul(PlainActivation(hidden, GetParam().activation), in[3][group]);
    if (GetParam().bias) y = y + in[4][group];
    expected.push_back(y);
    begin += GetParam().rows[g];
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

INSTANTIATE_TEST_SUITE_P(Groups, GroupedFfnTest,
                         testing::Values(Case{{4}, Activation::kGeluTanh, true},
                                         Case{{2, 0, 3}, Activation::kGeluTanh, true},
                                         Case{{2, 0, 3}, Activation::kGelu, true},
                                         Case{{0, 5, 0}, Activation::kRelu, true},
                                         Case{{3, 1, 2}, Activation::kRelu, false},
                                         Case{{0, 0}, Activation::kGeluTanh, true},
                                         Case{{0, 0}, Activation::kRelu, false}));

TEST(GroupedFfnShapesTest, RowsThatDoNotAddUpAreRefused) {
  const GroupedFfnWeights weights = {Random({2, 3, 5}, "a"), {}, Random({2, 5, 3}, "b"), {}};
  EXPECT_THROW(GroupedFfn(Random({4, 3}, "x"), {2, 1}, weights, Activation::kRelu), c10::Error);
  EXPECT_THROW(GroupedFfn(Random({4, 3}, "x"), {4}, weights, Activation::kRelu), c10::Error);
}

}  // namespace
}  // namespace hypermoe
