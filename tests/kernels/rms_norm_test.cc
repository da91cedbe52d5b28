#include "kernels/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

constexpr int64_t kWidth = 33;
constexpr double kEpsilon = 1e-2;  // large enough to be seen

class RmsNormTest : public TestInPlace {};

at::Tensor Definition(const at::Tensor& x, const at::Tensor& weight) {
  return x / (x.pow(2).mean(-1, /*keepdim=*/true) + kEpsilon).sqrt() * weight;
}

// With weights of x's precision, or wider, as models have them.
TEST_P(RmsNormTest, EqualsTheDefinitionWithItsGradients) {
  const TestPlace& place = GetParam();
  const double tolerance = place.dtype == at::kDouble  ? 1e-13
                           : place.dtype == at::kFloat ? 1e-5
                                                       : 1e-2;
  for (const at::ScalarType weights : {place.dtype, at::kFloat, at::kDouble}) {
    if (place.dtype == at::kDouble && weights == at::kFloat) continue;
    for (const int64_t rows : {0, 1, 7, 70}) {
      std::vector<at::Tensor> in = {place.Put(Random({rows, kWidth}, "x")),
                                    place.Put(Random({kWidth}, "weight")).to(weights)};
      std::vector<at::Tensor> exact;
      for (at::Tensor& input : in) {
        exact.push_back(input.cpu().to(at::kDouble, false, /*copy=*/true).set_requires_grad(true));
        input.set_requires_grad(true);
      }
      const at::Tensor y = RmsNorm(in[0], in[1], kEpsilon),
                       expected = Definition(exact[0], exact[1]);
      ASSERT_EQ(y.scalar_type(), place.dtype);
      ASSERT_EQ(y.sizes(), expected.sizes());
      const at::Tensor grad = place.Put(Random({rows, kWidth}, "grad"));
      y.backward(grad);
      expected.backward(grad.cpu().to(at::kDouble));
      if (rows == 0) {
        EXPECT_EQ(in[1].grad().abs().max().item<double>(), 0);
        continue;
      }
      EXPECT_LE(RelativeError(y.detach(), expected.detach()), tolerance);
      for (size_t i = 0; i < in.size(); ++i) {
        EXPECT_EQ(in[i].grad().scalar_type(), in[i].scalar_type());
        EXPECT_LE(RelativeError(in[i].grad(), exact[i].grad()), tolerance) << "input " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Places, RmsNormTest, AllPlaces(), NameOfPlace);

TEST(RmsNormGradientTest, MatchesDifferencesOfWhatRequiresIt) {
  for (const auto& [x_requires, weight_requires] :
       {std::pair(true, true), {true, false}, {false, true}}) {
    EXPECT_TRUE(GradientsMatchDifferences(
        [](const std::vector<at::Tensor>& in) { return RmsNorm(in[0], in[1], kEpsilon); },
        {Random({3, 5}, "x").set_requires_grad(x_requires),
         Random({5}, "weight").set_requires_grad(weight_requires)}));
  }
}

TEST(RmsNormGradientTest, ShapesThatDoNotFitAreRefused) {
  EXPECT_THROW(RmsNorm(Random({3, 5}, "x"), Random({4}, "weight"), kEpsilon), c10::Error);
  EXPECT_THROW(RmsNorm(Random({2, 3, 5}, "x"), Random({5}, "weight"), kEpsilon), c10::Error);
}

}  // namespace
}  // namespace hypermoe
