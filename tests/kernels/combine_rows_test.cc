#include "kernels/combine_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

enum class Base { kNone, kTokens, kRows };

struct Case {
  int64_t tokens, choices, width;
  Base base;
  bool moved;  // rows stand in another order than tokens
};

class CombineRowsTest : public testing::TestWithParam<Case> {
 protected:
  // rows, gates, base
  static std::vector<at::Tensor> Inputs(at::ScalarType dtype) {
    const Case& c = GetParam();
    return {Leaf({c.tokens * c.choices, c.width}, "rows", dtype),
            Leaf({c.tokens, c.choices}, "gates", dtype == at::kDouble ? at::kDouble : at::kFloat),
            c.base == Base::kNone ? at::Tensor() : Leaf({c.tokens, c.width}, "base", dtype)};
  }
  // Some permutation without a pattern.
  static at::Tensor Positions() {
    const int64_t count = GetParam().tokens * GetParam().choices;
    return GetParam().moved ? Random({count}, "positions").argsort() : at::Tensor();
  }
  static at::Tensor Run(const std::vector<at::Tensor>& in) {
    return CombineRows(in[0], in[1], Positions(), in[2],
                       GetParam().base == Base::kRows ? BaseOrder::kRows : BaseOrder::kTokens);
  }
  // The definition, in float64.
  static at::Tensor Plain(const std::vector<at::Tensor>& in) {
    const Case& c = GetParam();
    const auto moved = [](const at::Tensor& rows) {
      return GetParam().moved ? at::index_select(rows, 0, Positions()) : rows;
    };
    at::Tensor y = (moved(in[0].to(at::kDouble)).view({c.tokens, c.choices, c.width}) *
                    in[1].to(at::kDouble).unsqueeze(2))
                       .sum(1);
    if (c.base == Base::kNone) return y;
    const at::Tensor base = in[2].to(at::kDouble);
    return y + (c.base == Base::kRows ? moved(base) : base);
  }
};

TEST_P(CombineRowsTest, EqualsTheDefinitionWithItsGradients) {
  for (const auto& [dtype, tolerance] :
       {std::pair(at::kDouble, 1e-13), {at::kFloat, 1e-5}, {at::kBFloat16, 1e-2}}) {
    const std::vector<at::Tensor> in = Inputs(dtype), plain_in = Inputs(dtype);
    const at::Tensor y = Run(in), plain = Plain(plain_in);
    ASSERT_EQ(y.scalar_type(), dtype);
    ASSERT_EQ(y.sizes(), plain.sizes());
    const at::Tensor grad = Random(y.sizes(), "grad", dtype);
    y.backward(grad);
    plain.backward(grad.to(at::kDouble));
    if (y.numel() == 0) continue;
    EXPECT_LE(RelativeError(y.detach(), plain.detach()), tolerance);
    for (size_t i = 0; i < in.size(); ++i) {
      if (!in[i].defined()) continue;
      EXPECT_EQ(in[i].grad().scalar_type(), in[i].scalar_type());
      EXPECT_LE(RelativeError(in[i].grad(), plain_in[i].grad()), tolerance) << "input " << i;
    }
  }
}

TEST_P(CombineRowsTest, SameBitsForAnyNumberOfThreads) {
  std::vector<std::vector<at::Tensor>> results;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const std::vector<at::Tensor> in = Inputs(at::kFloat);
    const at::Tensor y = Run(in);
    y.backward(Random(y.sizes(), "grad", at::kFloat));
    results.push_back({y.detach(), in[0].grad(), in[1].grad()});
  }
  for (const auto& result : results) {
    for (size_t i = 0; i < result.size(); ++i) EXPECT_TRUE(result[i].equal(results[0][i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CombineRowsTest,
    testing::Values(Case{0, 1, 8, Base::kTokens, true}, Case{1, 1, 1, Base::kNone, false},
                    Case{7, 1, 130, Base::kNone, true}, Case{7, 1, 64, Base::kRows, true},
                    Case{7, 1, 70, Base::kRows, false}, Case{5, 2, 17, Base::kTokens, true},
                    Case{500, 1, 100, Base::kRows, true}, Case{300, 3, 128, Base::kTokens, false},
                    Case{300, 2, 72, Base::kNone, true}));

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
