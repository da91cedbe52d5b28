#include "kernels/combine_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

enum class Base { kNone, kTokens, kRows };

struct Case {
  int64_t tokens, choices, width;
  Base base;
  bool moved;  // rows stand in another order than tokens
};

class CombineRowsTest : public TestCaseInPlace<Case> {
 protected:
  // rows, gates, base
  static std::vector<at::Tensor> Inputs() {
    const Case& c = Given();
    const auto leaf = [](at::IntArrayRef shape, const char* name, at::ScalarType dtype) {
      return Random(shape, name, dtype).to(Place().device).set_requires_grad(true);
    };
    const at::ScalarType dtype = Place().dtype;
    return {leaf({c.tokens * c.choices, c.width}, "rows", dtype),
            leaf({c.tokens, c.choices}, "gates", dtype == at::kDouble ? at::kDouble : at::kFloat),
            c.base == Base::kNone ? at::Tensor() : leaf({c.tokens, c.width}, "base", dtype)};
  }
  // Some permutation without a pattern.
  static at::Tensor Positions() {
    const int64_t count = Given().tokens * Given().choices;
    return Given().moved ? Random({count}, "positions").argsort().to(Place().device) : at::Tensor();
  }
  static at::Tensor Run(const std::vector<at::Tensor>& in) {
    return CombineRows(in[0], in[1], Positions(), in[2],
                       Given().base == Base::kRows ? BaseOrder::kRows : BaseOrder::kTokens);
  }
  // The definition, in float64.
  static at::Tensor Plain(const std::vector<at::Tensor>& in) {
    const Case& c = Given();
    const auto moved = [](const at::Tensor& rows) {
      return Given().moved ? at::index_select(rows, 0, Positions()) : rows;
    };
    at::Tensor y = (moved(in[0].to(at::kDouble)).view({c.tokens, c.choices, c.width}) *
                    in[1].to(at::kDouble).unsqueeze(2))
                       .sum(1);
    if (c.base == Base::kNone) return y;
    const at::Tensor base = in[2].to(at::kDouble);
    return y + (c.base == Base::kRows ? moved(base) : base);
  }
  static double Tolerance() {
    return Place().dtype == at::kDouble ? 1e-13 : Place().dtype == at::kFloat ? 1e-5 : 1e-2;
  }
};

TEST_P(CombineRowsTest, EqualsTheDefinitionWithItsGradients) {
  const std::vector<at::Tensor> in = Inputs(), plain_in = Inputs();
  const at::Tensor y = Run(in), plain = Plain(plain_in);
  ASSERT_EQ(y.scalar_type(), Place().dtype);
  ASSERT_EQ(y.device(), in[0].device());
  ASSERT_EQ(y.sizes(), plain.sizes());
  const at::Tensor grad = Place().Put(Random(y.sizes(), "grad"));
  y.backward(grad);
  plain.backward(grad.to(at::kDouble));
  if (y.numel() == 0) return;
  EXPECT_LE(RelativeError(y.detach(), plain.detach()), Tolerance());
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].defined()) continue;
    EXPECT_EQ(in[i].grad().scalar_type(), in[i].scalar_type());
    EXPECT_LE(RelativeError(in[i].grad(), plain_in[i].grad()), Tolerance()) << "input " << i;
  }
}

TEST_P(CombineRowsTest, SameBitsForAnyNumberOfThreadsAndInEveryRun) {
  std::vector<std::vector<at::Tensor>> results;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const std::vector<at::Tensor> in = Inputs();
    const at::Tensor y = Run(in);
    y.backward(Place().Put(Random(y.sizes(), "grad")));
    results.push_back({y.detach(), in[0].grad(), in[1].grad()});
  }
  for (const auto& result : results) {
    for (size_t i = 0; i < result.size(); ++i) EXPECT_TRUE(result[i].equal(results[0][i])) << i;
  }
}

// Rows that begin between multiples of 16 bytes.
TEST_P(CombineRowsTest, TakesUnalignedSlices) {
  const std::vector<at::Tensor> in = Inputs();
  const auto shifted = [](const at::Tensor& tensor) {
    const at::Tensor room = at::empty({tensor.numel() + 1}, tensor.options().requires_grad(false));
    return room.narrow(0, 1, tensor.numel()).view(tensor.sizes()).copy_(tensor.detach());
  };
  const at::Tensor rows = shifted(in[0]).set_requires_grad(true);
  const at::Tensor y = Run({rows, in[1], in[2].defined() ? shifted(in[2]) : in[2]}),
                   plain = Run(in);
  EXPECT_TRUE(y.equal(plain));
  const at::Tensor grad = Place().Put(Random(y.sizes(), "grad"));
  y.backward(shifted(grad));
  plain.backward(grad);
  EXPECT_LE(y.numel() == 0 ? 0 : RelativeError(rows.grad(), in[0].grad()), 0);
}

INSTANTIATE_TEST_SUITE_P(Cases, CombineRowsTest,
                         testing::Combine(testing::Values(Case{0, 1, 8, Base::kTokens, true},
                                                          Case{1, 1, 1, Base::kNone, false},
                                                          Case{7, 1, 130, Base::kNone, true},
                                                          Case{7, 1, 64, Base::kRows, true},
                                                          Case{7, 1, 70, Base::kRows, false},
                                                          Case{5, 2, 17, Base::kTokens, true},
                                                          Case{500, 1, 100, Base::kRows, true},
                                                          Case{300, 3, 128, Base::kTokens, false},
                                                          Case{300, 2, 72, Base::kNone, true}),
                                          AllPlaces()));

TEST(CombineRowsChecksTest, RefusesWhatDoesNotFit) {
  const auto rows = [](int64_t count) { return Random({count, 4}, "rows"); };
  const at::Tensor gates = Random({3, 2}, "gates");
  const auto positions = [](int64_t count) { return Random({count}, "positions").argsort(); };
  EXPECT_NO_THROW(CombineRows(rows(6), gates, positions(6), rows(3), BaseOrder::kTokens));
  EXPECT_THROW(CombineRows(rows(5), gates, {}, {}, BaseOrder::kTokens), c10::Error);
  EXPECT_THROW(CombineRows(rows(6), gates, positions(5), {}, BaseOrder::kTokens), c10::Error);
  EXPECT_THROW(CombineRows(rows(6), gates, {}, rows(6), BaseOrder::kTokens), c10::Error);
  EXPECT_THROW(CombineRows(rows(6), gates, {}, rows(3), BaseOrder::kRows), c10::Error);
  EXPECT_THROW(CombineRows(rows(6), gates.to(at::kFloat), {}, {}, BaseOrder::kTokens), c10::Error);
  EXPECT_THROW(CombineRows(rows(6).to(at::kLong), gates, {}, {}, BaseOrder::kTokens), c10::Error);
}

}  // namespace
}  // namespace hypermoe
