#include "kernels/layer_norm.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

class LayerNormTest : public TestInPlace {};

at::Tensor Definition(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor deviation = x - x.mean(-1, /*keepdim=*/true);
  const at::Tensor variance = deviation.pow(2).mean(-1, /*keepdim=*/true);
  return deviation / (variance + 1e-5).sqrt() * weight + bias;
}

// With weights at least as precise as x, as models have them.
TEST_P(LayerNormTest, EqualsTheDefinitionWithItsGradients) {
  const TestPlace& place = GetParam();
  const at::ScalarType weights = place.dtype == at::kDouble ? at::kDouble : at::kFloat;
  const double tolerance = place.dtype == at::kDouble  ? 1e-13
                           : place.dtype == at::kFloat ? 1e-5
                                                       : 1e-2;
  for (const int64_t rows : {0, 1, 7}) {
    std::vector<at::Tensor> in = {place.Put(Random({rows, 33}, "x")), Random({33}, "weight"),
                                  Random({33}, "bias")};
    std::vector<at::Tensor> exact;
    for (size_t i = 0; i < in.size(); ++i) {
      if (i > 0) in[i] = in[i].to(place.Options().dtype(weights));
      exact.push_back(in[i].detach().cpu().to(at::kDouble, false, /*copy=*/true));
      in[i].set_requires_grad(true);
      exact[i].set_requires_grad(true);
    }
    const at::Tensor y = LayerNorm(in[0], in[1], in[2], 1e-5),
                     expected = Definition(exact[0], exact[1], exact[2]);
    ASSERT_EQ(y.scalar_type(), place.dtype);
    ASSERT_EQ(y.sizes(), expected.sizes());
    const at::Tensor grad = place.Put(Random({rows, 33}, "grad"));
    y.backward(grad);
    expected.backward(grad.cpu().to(at::kDouble));
    if (rows == 0) continue;
    EXPECT_LE(RelativeError(y.detach(), expected.detach()), tolerance);
    for (size_t i = 0; i < in.size(); ++i) {
      EXPECT_LE(RelativeError(in[i].grad(), exact[i].grad()), tolerance) << "input " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Places, LayerNormTest, AllPlaces(), NameOfPlace);

}  // namespace
}  // namespace hypermoe
