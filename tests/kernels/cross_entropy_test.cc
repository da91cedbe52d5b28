#include "kernels/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

constexpr int64_t kIgnored = -100;

TEST(CrossEntropyTest, EqualsTheFormulaAndItsGradient) {
  const at::Tensor labels = at::tensor({1, -100, 4, 0, 6}, at::kLong);
  const auto loss = [&](const at::Tensor& logits) {
    return SumCrossEntropy(logits, labels, 2.5, kIgnored);
  };
  const at::Tensor logits = Random({5, 7}, "logits") * 3;
  double expected = 0;
  for (const int64_t t : {0, 2, 3, 4}) {
    const at::Tensor row = logits[t];
    expected += (row.exp().sum().log() - row[labels[t].item<int64_t>()]).item<double>() / 2.5;
  }
  EXPECT_NEAR(loss(logits).item<double>(), expected, 1e-13);
  // A copy, because backward overwrites.
  EXPECT_TRUE(
      GradientsMatchDifferences([&](std::vector<at::Tensor> in) { return loss(in[0] * 1.0); },
                                {logits.clone().set_requires_grad(true)}));
}

struct Size {
  int64_t tokens, vocabulary;
};

class CrossEntropySizesTest : public TestCaseInPlace<Size> {
 protected:
  // Every fifth token is ignored; first and last of the vocabulary are among the labels.
  static at::Tensor Labels() {
    const auto [tokens, vocabulary] = Given();
    const at::Tensor labels =
        (Random({tokens}, "labels") * 1e6).to(at::kLong).abs().remainder(vocabulary);
    for (int64_t t = 0; t < tokens; ++t) {
      if (t % 5 == 4) labels[t] = kIgnored;
      if (t % 7 == 1) labels[t] = t % 2 == 0 ? 0 : vocabulary - 1;
    }
    return labels.to(Place().device);
  }
  // Large: without the maximum, exp overflows.
  static at::Tensor Logits() {
    return Place().Put(Random({Given().tokens, Given().vocabulary}, "logits") * 200);
  }
  static double Tolerance() {
    return Place().dtype == at::kDouble ? 1e-13 : Place().dtype == at::kFloat ? 1e-4 : 1e-2;
  }

  struct Result {
    at::Tensor loss, gradient;
  };
  // With a factor above the loss. The gradient is that of the logits themselves.
  static Result Run(const at::Tensor& logits, const at::Tensor& labels) {
    const at::Tensor leaf = logits.detach().set_requires_grad(true);
    const at::Tensor loss = SumCrossEntropy(leaf, labels, 2.5, kIgnored);
    (loss * 3).backward();
    return {loss.detach(), leaf.grad()};
  }
  // The definition, in float64 on the CPU, of logits that were rounded to the place's dtype.
  static Result Expected(const at::Tensor& logits, const at::Tensor& labels) {
    const at::Tensor leaf = logits.to(at::kCPU, at::kDouble, false, true).set_requires_grad(true);
    const at::Tensor on_cpu = labels.cpu(), counted = on_cpu.ne(kIgnored),
                     index = on_cpu.masked_fill(counted.logical_not(), 0);
    const at::Tensor chosen =
        at::log_softmax(leaf, 1).gather(1, index.unsqueeze(1)).squeeze(1) * counted;
    const at::Tensor loss = chosen.sum() / -2.5;
    (loss * 3).backward();
    return {loss.detach(), leaf.grad()};
  }
};

TEST_P(CrossEntropySizesTest, EqualsTheDefinitionAndOverwritesTheLogits) {
  const at::Tensor logits = Logits(), labels = Labels();
  const Result expected = Expected(logits, labels);
  const Result result = Run(logits, labels);
  EXPECT_EQ(result.loss.dim(), 0);
  EXPECT_EQ(result.loss.scalar_type(), Place().dtype == at::kDouble ? at::kDouble : at::kFloat);
  EXPECT_EQ(result.gradient.scalar_type(), Place().dtype);
  EXPECT_TRUE(result.gradient.equal(logits));
  EXPECT_EQ(logits.masked_select(labels.eq(kIgnored).unsqueeze(1)).ne(0).sum().item<int64_t>(), 0);
  if (logits.numel() == 0) {
    EXPECT_EQ(result.loss.item<double>(), 0);
    return;
  }
  if (Given().vocabulary == 1) {  // certain: nothing is lost, nothing to learn
    EXPECT_EQ(result.loss.item<double>(), 0);
    EXPECT_EQ(result.gradient.ne(0).sum().item<int64_t>(), 0);
    return;
  }
  EXPECT_LE(RelativeError(result.loss, expected.loss), Tolerance());
  EXPECT_LE(RelativeError(result.gradient, expected.gradient), Tolerance());
}

TEST_P(CrossEntropySizesTest, SameBitsInEveryRunAndFromAnyAddress) {
  const Result first = Run(Logits(), Labels());
  for (const int64_t offset : {0, 1, 3}) {
    const at::Tensor logits = Logits(),
                     room = at::ones({logits.numel() + offset + 9}, Place().Options());
    const at::Tensor moved = room.narrow(0, offset, logits.numel()).view(logits.sizes());
    moved.copy_(logits);
    const Result again = Run(moved, Labels());
    if (offset == 0) {
      EXPECT_TRUE(again.loss.equal(first.loss));
      EXPECT_TRUE(again.gradient.equal(first.gradient));
    } else if (logits.numel() > 0) {  // rows are cut into other strands
      EXPECT_LE((again.loss - first.loss).abs().item<double>(),
                Tolerance() * (1 + first.loss.abs().item<double>()));
      EXPECT_LE((again.gradient - first.gradient).abs().max().item<double>(), 10 * Tolerance());
    }
    // What stands before and after the logits.
    EXPECT_EQ(room.narrow(0, 0, offset).ne(1).sum().item<int64_t>(), 0);
    EXPECT_EQ(room.narrow(0, offset + logits.numel(), 9).ne(1).sum().item<int64_t>(), 0);
  }
}

// Around what a pack and a block take; odd and even vocabularies of GPT-2; rows of more than a
// piece on the CPU.
INSTANTIATE_TEST_SUITE_P(
    Sizes, CrossEntropySizesTest,
    testing::Combine(testing::Values(Size{0, 7}, Size{1, 1}, Size{6, 2}, Size{9, 7}, Size{9, 8},
                                     Size{17, 9}, Size{33, 31}, Size{40, 511}, Size{12, 4104},
                                     Size{180, 3001}, Size{6, 50257}, Size{6, 50304}),
                     AllPlaces()));

class CrossEntropyPlacesTest : public TestInPlace {
 protected:
  static at::Tensor Labels(at::IntArrayRef labels) {
    return at::tensor(labels, at::kLong).to(GetParam().device);
  }
};

TEST_P(CrossEntropyPlacesTest, IgnoredTokensAloneLoseNothing) {
  const at::Tensor logits = GetParam().Put(Random({3, 40}, "logits")).set_requires_grad(true);
  const at::Tensor loss =
      SumCrossEntropy(logits, Labels({kIgnored, kIgnored, kIgnored}), 4, kIgnored);
  EXPECT_EQ(loss.item<double>(), 0);
  loss.backward();
  EXPECT_EQ(logits.grad().ne(0).sum().item<int64_t>(), 0);
}

// Masked vocabulary: -inf has no probability, and no gradient.
TEST_P(CrossEntropyPlacesTest, TakesMinusInfinity) {
  const double infinity = std::numeric_limits<double>::infinity();
  at::Tensor exact = Random({2, 600}, "logits");
  exact.narrow(1, 100, 460).fill_(-infinity);
  const at::Tensor logits = GetParam().Put(exact).set_requires_grad(true);
  const at::Tensor loss = SumCrossEntropy(logits, Labels({3, 599}), 1, kIgnored);
  const at::Tensor wide = logits.detach().to(at::kCPU, at::kDouble);
  const at::Tensor log_probs = at::log_softmax(wide, 1);
  const double expected = -(log_probs[0][3] + log_probs[1][599]).item<double>();
  EXPECT_NEAR(loss.item<double>(), expected, 1e-5 * expected);
  loss.backward();
  EXPECT_EQ(logits.grad().narrow(1, 100, 460).ne(0).sum().item<int64_t>(), 0);
  EXPECT_TRUE(logits.grad().isfinite().all().item<bool>());
}

TEST_P(CrossEntropyPlacesTest, NanInLogitsIsNanInTheLoss) {
  for (const int64_t position : {0, 17, 599}) {
    at::Tensor exact = Random({2, 600}, "logits");
    exact[1][position] = std::numeric_limits<double>::quiet_NaN();
    const at::Tensor loss = SumCrossEntropy(GetParam().Put(exact), Labels({3, 4}), 1, kIgnored);
    EXPECT_TRUE(std::isnan(loss.item<double>())) << position;
  }
}

TEST_P(CrossEntropyPlacesTest, FindsLabelsOutsideTheVocabulary) {
  for (const int64_t label : {int64_t{40}, int64_t{-1}, int64_t{1} << 40}) {
    const at::Tensor logits = GetParam().Put(Random({2, 40}, "logits")).set_requires_grad(true);
    const at::Tensor labels = Labels({3, label});
    if (GetParam().device == at::kCPU) {
      EXPECT_THROW(SumCrossEntropy(logits, labels, 1, kIgnored), c10::Error) << label;
      continue;
    }
    const at::Tensor loss = SumCrossEntropy(logits, labels, 1, kIgnored);
    EXPECT_TRUE(std::isnan(loss.item<double>())) << label;
    loss.backward();
    EXPECT_TRUE(logits.grad()[0].isfinite().all().item<bool>());
    EXPECT_TRUE(logits.grad()[1].isnan().all().item<bool>());
  }
}

TEST_P(CrossEntropyPlacesTest, RefusesASecondBackward) {
  const at::Tensor logits = GetParam().Put(Random({2, 40}, "logits")).set_requires_grad(true);
  const at::Tensor loss = SumCrossEntropy(logits * 1, Labels({3, 4}), 1, kIgnored);
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_THROW(loss.backward(), c10::Error);
}

TEST_P(CrossEntropyPlacesTest, RefusesWhatDoesNotFit) {
  const at::Tensor logits = GetParam().Put(Random({2, 40}, "logits"));
  const auto refuses = [&](const at::Tensor& x, const at::Tensor& labels) {
    EXPECT_THROW(SumCrossEntropy(x, labels, 1, kIgnored), c10::Error);
  };
  EXPECT_NO_THROW(SumCrossEntropy(logits, Labels({3, 4}), 1, kIgnored));
  refuses(logits, Labels({3, 4, 5}));
  refuses(logits[0], Labels({3}));
  refuses(logits, Labels({3, 4}).to(at::kInt));
  refuses(logits.to(at::kHalf), Labels({3, 4}));
  if (GetParam().device == at::kCUDA) refuses(logits, Labels({3, 4}).cpu());
}

INSTANTIATE_TEST_SUITE_P(Places, CrossEntropyPlacesTest, AllPlaces(), NameOfPlace);

}  // namespace
}  // namespace hypermoe
