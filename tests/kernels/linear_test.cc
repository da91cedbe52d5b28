#include "kernels/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <string>

#include "kernels/grouped_ffn.h"
#include "kernels/matrix_product.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"

namespace hypermoe {
namespace {

// Both libraries, all strides, against float64: large products take oneDNN, small ones and those
// with gaps in memory MKL.
TEST(MatrixProductTest, EqualsFloat64ForAllSizesAndStrides) {
  for (const auto& [m, k, n] : {std::tuple(3, 5, 7),
                                {130, 768, 1024},
                                {1, 1024, 9000},
                                {768, 33, 1500},
                                {0, 768, 1024},
                                {700, 0, 1200}}) {
    for (const bool a_turned : {false, true}) {
      for (const bool b_turned : {false, true}) {
        const at::Tensor a =
            a_turned ? Random({k, m}, "a", at::kFloat).t() : Random({m, k}, "a", at::kFloat);
        const at::Tensor b =
            b_turned ? Random({n, k}, "b", at::kFloat).t() : Random({k, n}, "b", at::kFloat);
        const at::Tensor bias = Random({n}, "bias", at::kFloat);
        const at::Tensor expected =
            at::matmul(a.to(at::kDouble), b.to(at::kDouble)) + bias.to(at::kDouble);
        const at::Tensor actual = MatrixProduct(a, b, bias);
        ASSERT_EQ(actual.sizes(), expected.sizes());
        at::Tensor sum = Random({m, n}, "sum", at::kFloat);
        const at::Tensor expected_sum = sum.to(at::kDouble) + expected - bias.to(at::kDouble);
        AddMatrixProduct(sum, a, b);
        if (m == 0) continue;
        EXPECT_LE(RelativeError(actual, expected), 1e-5) << m << " x " << k << " x " << n;
        EXPECT_LE(RelativeError(sum, expected_sum), 1e-5) << m << " x " << k << " x " << n;
      }
    }
  }
}

TEST(MatrixProductTest, TakesSlicesOfLargerMatrices) {
  const at::Tensor a = Random({600, 1600}, "a", at::kFloat).narrow(1, 100, 1024);
  const at::Tensor b = Random({1024, 1500}, "b", at::kFloat).narrow(1, 3, 1024);
  EXPECT_LE(RelativeError(MatrixProduct(a, b), at::matmul(a.to(at::kDouble), b.to(at::kDouble))),
            1e-5);
}

TEST(MatrixProductTest, AddsNarrowProductsToAWiderSum) {
  const at::Tensor a = Random({40, 30}, "a", at::kBFloat16),
                   b = Random({30, 20}, "b", at::kBFloat16);
  const at::Tensor sum = at::zeros({40, 20}, at::kFloat);
  AddMatrixProduct(sum, a, b);
  EXPECT_EQ(sum.scalar_type(), at::kFloat);
  EXPECT_LE(RelativeError(sum, at::matmul(a.to(at::kDouble), b.to(at::kDouble))), 0.01);
}

TEST(LinearTest, GradientsMatchDifferences) {
  EXPECT_TRUE(GradientsMatchDifferences(
      [](std::vector<at::Tensor> in) { return Linear(in[0], in[1], in[2]); },
      {Leaf({4, 3}, "x"), Leaf({3, 5}, "w"), Leaf({5}, "b")}));
  EXPECT_TRUE(GradientsMatchDifferences(
      [](std::vector<at::Tensor> in) { return LinearTransposed(in[0], in[1]); },
      {Leaf({4, 3}, "x"), Leaf({5, 3}, "w")}));
  const at::Tensor ids = at::tensor({2, 0, 2, 1}, at::kLong).view({2, 2});
  EXPECT_TRUE(GradientsMatchDifferences(
      [&](std::vector<at::Tensor> in) { return EmbeddingRows(in[0], ids); }, {Leaf({4, 3}, "w")}));
}

// Counts how often autograd's hook of a leaf fires.
class CountingHook final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit CountingHook(int* count) : count_(count) {}
  void operator()(const at::Tensor& /*leaf*/) override { ++*count_; }

 private:
  int* count_;
};

// A weight that has a gradient gets the same sum in place, and its hook fires once a backward,
// after the last of its uses.
TEST(GradientSinkTest, AddsInPlaceWhatAutogradWouldAdd) {
  const at::Tensor ids = at::tensor({2, 0, 2, 1}, at::kLong);
  const at::Tensor x = Leaf({4, 3}, "x");
  const auto loss = [&](const std::vector<at::Tensor>& w) {
    const at::Tensor tokens = EmbeddingRows(w[0], ids) + Linear(x, w[1], at::Tensor());
    const GroupedFfnWeights experts = {w[2], {}, w[3], {}};
    const at::Tensor y = GroupedFfn(tokens, {1, 0, 3}, experts, Activation::kGeluTanh);
    return LinearTransposed(y, w[0]).pow(2).sum();
  };
  const auto weights = [] {
    return std::vector<at::Tensor>{Leaf({5, 3}, "wte"), Leaf({3, 3}, "w"), Leaf({3, 3, 6}, "up"),
                                   Leaf({3, 6, 3}, "down")};
  };
  const std::vector<at::Tensor> plain = weights(), sinks = weights();
  loss(plain).backward();
  std::vector<int> fired(sinks.size(), 0);
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < sinks.size(); ++i) {
    sinks[i].mutable_grad() = at::ones_like(sinks[i]);
    gradients.push_back(sinks[i].grad());
    torch::autograd::impl::set_post_acc_grad_hooks(sinks[i],
                                                   std::make_unique<CountingHook>(&fired[i]));
  }
  loss(sinks).backward();
  for (size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_TRUE(sinks[i].grad().is_same(gradients[i]));
    EXPECT_LE(RelativeError(gradients[i] - 1, plain[i].grad()), 1e-14) << "weight " << i;
    EXPECT_EQ(fired[i], 1) << "weight " << i;
  }
  // Without rows an expert's gradient stays as it is.
  EXPECT_TRUE(gradients[2][1].eq(1).all().item<bool>());
}

}  // namespace
}  // namespace hypermoe
