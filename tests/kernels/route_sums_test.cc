#include "kernels/route_sums.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

struct Case {
  int64_t rows, row_tokens, experts, choices;
};

class RouteSumsTest : public testing::TestWithParam<Case> {
 protected:
  static at::Tensor Probs(at::ScalarType dtype) {
    return Leaf({GetParam().rows * GetParam().row_tokens, GetParam().experts}, "probs", dtype);
  }
  static at::Tensor Gates(at::ScalarType dtype) {
    return Leaf({GetParam().rows * GetParam().row_tokens, GetParam().choices}, "gates", dtype);
  }
  static at::Tensor Ids() {
    return (Gates(at::kDouble).detach() * 1e6).floor().to(at::kLong).remainder(GetParam().experts);
  }
};

TEST_P(RouteSumsTest, EqualsTheDefinitionWithItsGradients) {
  const Case& c = GetParam();
  const at::Tensor chosen =
      at::one_hot(Ids().flatten(), c.experts).view({c.rows, c.row_tokens * c.choices, c.experts});
  for (const at::Device device : DevicesHere()) {
    for (const auto& [dtype, tolerance] : {std::pair(at::kDouble, 1e-13), {at::kFloat, 1e-5}}) {
      const at::Tensor probs = Probs(dtype), plain_probs = Probs(dtype), gates = Gates(dtype),
                       plain_gates = Gates(dtype);
      const RouteSums sums =
          SumRoutes(probs.to(device), Ids().to(device), gates.to(device), c.rows);
      EXPECT_TRUE(sums.choices_BN.cpu().equal(chosen.sum(1))) << device;
      const std::vector<at::Tensor>
          actual = {sums.probs_BN, sums.gates_BN},
          expected = {plain_probs.to(at::kDouble).view({c.rows, c.row_tokens, c.experts}).sum(1),
                      (plain_gates.to(at::kDouble).view({c.rows, -1, 1}) * chosen).sum(1)};
      for (size_t i = 0; i < actual.size(); ++i) {
        ASSERT_EQ(actual[i].scalar_type(), dtype);
        ASSERT_EQ(actual[i].sizes(), expected[i].sizes());
        EXPECT_LE(RelativeError(actual[i].detach().cpu(), expected[i].detach()), tolerance)
            << device << ", sum " << i;
        const at::Tensor grad = Random(actual[i].sizes(), "grad", dtype);
        actual[i].backward(grad.to(device), /*retain_graph=*/true);
        expected[i].backward(grad.to(at::kDouble));
      }
      EXPECT_TRUE(probs.grad().equal(plain_probs.grad())) << device;
      EXPECT_TRUE(gates.grad().equal(plain_gates.grad())) << device;
    }
  }
}

TEST_P(RouteSumsTest, SameBitsForAnyNumberOfThreads) {
  std::vector<RouteSums> results;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    results.push_back(SumRoutes(Probs(at::kFloat), Ids(), Gates(at::kFloat), GetParam().rows));
    EXPECT_TRUE(results.back().probs_BN.equal(results[0].probs_BN));
    EXPECT_TRUE(results.back().gates_BN.equal(results[0].gates_BN));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RouteSumsTest,
                         testing::Values(Case{1, 1, 1, 1}, Case{1, 1000, 8, 2}, Case{3, 128, 5, 1},
                                         Case{4, 129, 8, 3}, Case{1, 5000, 3, 1},
                                         Case{2, 300, 64, 2}, Case{2, 40, 300, 4},
                                         Case{5, 7, 600, 1}));

TEST(RouteSumsChecksTest, WithoutTokens) {
  for (const at::Device device : DevicesHere()) {
    const at::Tensor probs = at::zeros({0, 4}, at::kFloat).to(device).set_requires_grad(true),
                     ids = at::zeros({0, 2}, at::kLong).to(device),
                     gates = at::zeros({0, 2}, at::kFloat).to(device).set_requires_grad(true);
    const RouteSums whole = SumRoutes(probs, ids, gates, 1);
    EXPECT_TRUE(whole.probs_BN.cpu().equal(at::zeros({1, 4})));
    EXPECT_TRUE(whole.gates_BN.cpu().equal(at::zeros({1, 4})));
    EXPECT_TRUE(whole.choices_BN.cpu().equal(at::zeros({1, 4}, at::kLong)));
    const RouteSums by_row = SumRoutes(probs, ids, gates, 0);
    EXPECT_EQ(by_row.probs_BN.sizes(), at::IntArrayRef({0, 4}));
    for (const RouteSums& sums : {whole, by_row}) {
      (sums.probs_BN.sum() + sums.gates_BN.sum()).backward();
      EXPECT_EQ(probs.grad().sizes(), probs.sizes());
      EXPECT_EQ(gates.grad().sizes(), gates.sizes());
    }
  }
}

TEST(RouteSumsChecksTest, RefusesWhatDoesNotFit) {
  const at::Tensor probs = Random({6, 4}, "probs"), gates = Random({6, 2}, "gates"),
                   ids = at::zeros({6, 2}, at::kLong);
  EXPECT_NO_THROW(SumRoutes(probs, ids, gates, 3));
  EXPECT_THROW(SumRoutes(probs, ids, gates, 4), c10::Error);
  EXPECT_THROW(SumRoutes(probs, ids, gates, 0), c10::Error);
  EXPECT_THROW(SumRoutes(probs, ids, gates.to(at::kFloat), 3), c10::Error);
  EXPECT_THROW(SumRoutes(probs, ids.to(at::kInt), gates, 3), c10::Error);
  EXPECT_THROW(SumRoutes(probs, ids.narrow(0, 0, 5), gates, 3), c10::Error);
  EXPECT_THROW(SumRoutes(probs, ids + 4, gates, 3), c10::Error);
  EXPECT_THROW(SumRoutes(probs, ids - 1, gates, 3), c10::Error);
}

}  // namespace
}  // namespace hypermoe
