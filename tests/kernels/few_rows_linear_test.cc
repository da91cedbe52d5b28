#include "kernels/few_rows_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/linear.h"
#include "tests/support/random_tensor.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

struct Sizes {
  int64_t rows, outputs, width;
};

class FewRowsLinearTest : public testing::TestWithParam<Sizes> {
 protected:
  void SetUp() override {
    if (!IsFewRowsLinear(at::zeros({8, 64}), at::zeros({16384, 64})))
      GTEST_SKIP() << "this processor has no AVX-512";
  }
};

// Through LinearTransposed, as it is used, against float64.
TEST_P(FewRowsLinearTest, EqualsFloat64WithItsGradients) {
  const auto [rows, outputs, width] = GetParam();
  const at::Tensor weight = Leaf({outputs, width}, "weight", at::kFloat);
  const at::Tensor grad = Random({rows, outputs}, "grad", at::kFloat);
  ASSERT_TRUE(IsFewRowsLinear(Random({rows, width}, "x", at::kFloat), weight));
  for (const bool has_bias : {false, true}) {
    for (const bool in_place : {false, true}) {
      const at::Tensor x = Leaf({rows, width}, "x", at::kFloat);
      const at::Tensor bias = has_bias ? Leaf({outputs}, "bias", at::kFloat) : at::Tensor();
      weight.mutable_grad() = in_place ? at::ones_like(weight) : at::Tensor();
      const at::Tensor y = LinearTransposed(x, weight, bias);
      y.backward(grad);

      const at::Tensor x64 = x.detach().to(at::kDouble), w64 = weight.detach().to(at::kDouble),
                       g64 = grad.to(at::kDouble);
      at::Tensor exact = at::matmul(x64, w64.t());
      if (has_bias) exact += bias.detach().to(at::kDouble);
      EXPECT_LE(RelativeError(y.detach(), exact), 1e-6);
      EXPECT_LE(RelativeError(x.grad(), at::matmul(g64, w64)), 1e-6);
      EXPECT_LE(RelativeError(weight.grad(), at::matmul(g64.t(), x64) + (in_place ? 1.0 : 0.0)),
                1e-6);
      if (!has_bias) continue;
      EXPECT_LE(RelativeError(bias.grad(), g64.sum(0)), 1e-6);
    }
  }
}

// Slices and parts that do not divide the outputs, and wide and narrow matrices among them.
INSTANTIATE_TEST_SUITE_P(Sizes, FewRowsLinearTest,
                         testing::Values(Sizes{8, 49152, 64}, Sizes{1, 33040, 16},
                                         Sizes{67, 12304, 48}, Sizes{128, 2064, 512}));

using FewRowsLinearDetailsTest = FewRowsLinearTest;
INSTANTIATE_TEST_SUITE_P(One, FewRowsLinearDetailsTest, testing::Values(Sizes{20, 16400, 64}));

TEST_P(FewRowsLinearDetailsTest, IsTheSameForAnyNumberOfThreads) {
  const auto [rows, outputs, width] = GetParam();
  const at::Tensor x = Random({rows, width}, "x", at::kFloat),
                   weight = Random({outputs, width}, "weight", at::kFloat),
                   grad = Random({rows, outputs}, "grad", at::kFloat);
  std::vector<at::Tensor> y, grad_x, grad_weight;
  for (const int threads : {1, 2, 3, 4}) {
    const ThreadsScope scope(threads);
    y.push_back(FewRowsLinear(x, weight, {}));
    grad_weight.push_back(at::zeros_like(weight));
    grad_x.push_back(FewRowsLinearBackward(grad, x, weight, true, grad_weight.back()));
    EXPECT_TRUE(y.back().equal(y[0])) << threads;
    EXPECT_TRUE(grad_x.back().equal(grad_x[0])) << threads;
    EXPECT_TRUE(grad_weight.back().equal(grad_weight[0])) << threads;
  }
}

TEST_P(FewRowsLinearDetailsTest, GivesTheGradientsThatAreNeeded) {
  const auto [rows, outputs, width] = GetParam();
  const at::Tensor x = Random({rows, width}, "x", at::kFloat),
                   weight = Random({outputs, width}, "weight", at::kFloat),
                   grad = Random({rows, outputs}, "grad", at::kFloat), sum = at::zeros_like(weight);
  EXPECT_FALSE(FewRowsLinearBackward(grad, x, weight, false, sum).defined());
  EXPECT_TRUE(sum.ne(0).any().item<bool>());
  const at::Tensor both = FewRowsLinearBackward(grad, x, weight, true, sum);
  EXPECT_TRUE(FewRowsLinearBackward(grad, x, weight, true, {}).equal(both));
}

TEST_P(FewRowsLinearDetailsTest, LeavesOtherSizesToLibraries) {
  const at::Tensor weight = at::zeros({16384, 64});
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({129, 64}), weight));
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({0, 64}), weight));
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({8, 64}, at::kDouble), weight.to(at::kDouble)));
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({8, 64}, at::kBFloat16), weight));
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({8, 64}), at::zeros({4096, 64})));
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({8, 63}), at::zeros({16384, 63})));
  EXPECT_FALSE(IsFewRowsLinear(at::zeros({8, 64}), at::zeros({16385, 64})));
}

}  // namespace
}  // namespace hypermoe
