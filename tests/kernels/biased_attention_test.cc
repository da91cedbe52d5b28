#include "kernels/biased_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/keyed_dropout.h"
#include "kernels/relative_attention.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

constexpr int64_t kRows = 2, kHeads = 3, kWidth = 16;

// Queries of several pieces, or with few keys of one.
struct Case {
  std::string name;
  int64_t queries, keys;
  bool bias, padded, causal;
  double dropout = 0;
};

const std::vector<Case> kCases = {
    {"nothing", 70, 48, false, false, false},
    {"encoder", 40, 1050, true, true, false},
    {"encoder_dropout", 40, 1050, true, true, false, 0.3},
    {"decoder", 45, 1050, true, false, true},
    {"decoder_dropout", 45, 1050, true, false, true, 0.3},
    {"cross", 33, 1030, false, true, false},
    {"odd", 5, 7, true, true, true},
};

AttentionDropout DropoutOf(const Case& test_case) {
  return {test_case.dropout, RandomKey{9, 0}.Derive("attention"), at::tensor({5, 2}, at::kLong)};
}

// 0, or so low that nothing is left: some keys of the first row, all of the second.
at::Tensor MaskOf(const Case& test_case, at::ScalarType dtype) {
  if (!test_case.padded && !test_case.causal) return {};
  at::Tensor masked = at::zeros(
      {kRows, 1, test_case.padded && !test_case.causal ? 1 : test_case.queries, test_case.keys},
      at::kBool);
  if (test_case.padded) {
    masked[0].narrow(-1, 2, 3).fill_(true);
    masked[1].fill_(true);
  }
  if (test_case.causal)
    masked = masked.logical_or(FutureKeys(test_case.queries, test_case.keys, at::kCPU));
  const double low = dtype == at::kDouble ? std::numeric_limits<double>::lowest()
                                          : std::numeric_limits<float>::lowest();
  return at::zeros(masked.sizes(), dtype).masked_fill_(masked, low / 2);
}

// q, k, v and, in cases that have one, the bias; heads as projections leave them.
std::vector<at::Tensor> Inputs(const Case& test_case, at::ScalarType dtype) {
  const auto heads = [](int64_t positions, const char* name) {
    return Random({kRows, positions, kHeads, kWidth}, name).transpose(1, 2);
  };
  std::vector<at::Tensor> in = {heads(test_case.queries, "q"), heads(test_case.keys, "k"),
                                heads(test_case.keys, "v")};
  if (test_case.bias) in.push_back(Random({kHeads, test_case.queries, test_case.keys}, "bias"));
  for (size_t i = 0; i < in.size(); ++i) {
    in[i] = in[i].to(i < 3 || dtype == at::kDouble ? dtype : at::kFloat).set_requires_grad(true);
  }
  return in;
}

at::Tensor Attend(const Case& test_case, const std::vector<at::Tensor>& in) {
  const at::ScalarType precise = in[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return BiasedAttention(in[0], in[1], in[2], test_case.bias ? in[3] : at::Tensor(),
                         MaskOf(test_case, precise), DropoutOf(test_case));
}

at::Tensor Definition(const Case& test_case, const std::vector<at::Tensor>& in) {
  at::Tensor scores = at::matmul(in[0], in[1].transpose(2, 3));
  if (test_case.bias) scores = scores + in[3];
  const at::Tensor mask = MaskOf(test_case, at::kDouble);
  if (mask.defined()) scores = scores + mask;
  const AttentionDropout dropout = DropoutOf(test_case);
  return at::matmul(
      KeyedDropout(at::softmax(scores, -1), dropout.probability, dropout.key, dropout.row_ids_B),
      in[2]);
}

TEST(BiasedAttentionTest, EqualsTheDefinitionWithItsGradients) {
  for (const Case& test_case : kCases) {
    for (const auto& [dtype, tolerance] :
         {std::pair(at::kDouble, 1e-12), {at::kFloat, 2e-5}, {at::kBFloat16, 5e-2}}) {
      const std::vector<at::Tensor> in = Inputs(test_case, dtype);
      std::vector<at::Tensor> exact;
      for (const at::Tensor& input : in) {
        exact.push_back(input.detach().to(at::kDouble, false, /*copy=*/true));
        exact.back().set_requires_grad(true);
      }
      const at::Tensor y = Attend(test_case, in), expected = Definition(test_case, exact);
      ASSERT_EQ(y.scalar_type(), dtype);
      ASSERT_EQ(y.sizes(), expected.sizes());
      EXPECT_LE(RelativeError(y.detach(), expected.detach()), tolerance) << test_case.name;
      const at::Tensor grad = Random(y.sizes(), "grad").to(dtype);
      y.backward(grad);
      expected.backward(grad.to(at::kDouble));
      for (size_t i = 0; i < in.size(); ++i) {
        EXPECT_EQ(in[i].grad().scalar_type(), in[i].scalar_type());
        EXPECT_LE(RelativeError(in[i].grad(), exact[i].grad()), tolerance)
            << test_case.name << ", " << dtype << ", input " << i;
      }
    }
  }
}

TEST(BiasedAttentionTest, GradientsMatchDifferences) {
  Case test_case = {"small", 5, 7, true, false, true};
  for (const double probability : {0.0, 0.3}) {
    test_case.dropout = probability;
    EXPECT_TRUE(GradientsMatchDifferences(
        [&](const std::vector<at::Tensor>& in) { return Attend(test_case, in); },
        Inputs(test_case, at::kDouble)));
  }
}

// What needs no gradient costs none, and changes nothing.
TEST(BiasedAttentionTest, GivesTheSameBitsWhateverIsWantedByAnyThreads) {
  const Case& test_case = kCases[1];
  std::vector<at::Tensor> in = Inputs(test_case, at::kFloat);
  const at::Tensor y = Attend(test_case, in);
  y.sum().backward();
  {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(Attend(test_case, in).equal(y));
  }
  const ThreadsScope one(1);
  std::vector<at::Tensor> again = Inputs(test_case, at::kFloat);
  Attend(test_case, again).sum().backward();
  for (size_t i = 0; i < in.size(); ++i) EXPECT_TRUE(again[i].grad().equal(in[i].grad())) << i;
  std::vector<at::Tensor> fixed = Inputs(test_case, at::kFloat);
  fixed[3].set_requires_grad(false);
  Attend(test_case, fixed).sum().backward();
  EXPECT_FALSE(fixed[3].grad().defined());
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(fixed[i].grad().equal(in[i].grad())) << i;
}

// Relative attention takes this form from a certain size on, and the same numbers come out.
TEST(BiasedAttentionTest, IsWhatLargeRelativeAttentionTakes) {
  for (const Case& test_case : kCases) {
    const std::vector<at::Tensor> in = Inputs(test_case, at::kFloat);
    AttentionBias bias;
    if (test_case.bias) bias.bias_HSL = in[3];
    bias.causal = test_case.causal;
    if (test_case.padded) {
      bias.allowed_BL = at::zeros({kRows, test_case.keys}, at::kBool);
      bias.allowed_BL[0].fill_(true).narrow(0, 2, 3).fill_(false);
    }
    const at::Tensor y = RelativeAttention(in[0], in[1], in[2], bias, DropoutOf(test_case));
    if (WritesOutProbabilities(test_case.queries, test_case.keys, at::kCPU)) {
      EXPECT_LE(RelativeError(y.detach(), Attend(test_case, in).detach()), 1e-5);
    } else {
      EXPECT_TRUE(y.equal(Attend(test_case, in))) << test_case.name;
    }
    // Keys that may all be seen are as no mask.
    if (!test_case.padded) continue;
    bias.allowed_BL.fill_(true);
    AttentionBias open = bias;
    open.allowed_BL = at::Tensor();
    EXPECT_TRUE(RelativeAttention(in[0], in[1], in[2], bias, {})
                    .equal(RelativeAttention(in[0], in[1], in[2], open, {})));
  }
}

}  // namespace
}  // namespace hypermoe
