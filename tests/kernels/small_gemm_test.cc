#include "kernels/small_gemm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/random_tensor.h"

namespace hypermoe {
namespace {

at::Tensor Exact(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.to(at::kDouble), b.to(at::kDouble));
}

bool Fits(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b) {
  return FitsSmallGemm(MatrixView::Of(c), MatrixView::Of(a), MatrixView::Of(b));
}

// A random matrix within a larger one, as it stands or transposed.
at::Tensor Part(int64_t rows, int64_t columns, bool turned, const char* name,
                at::ScalarType dtype) {
  if (turned) return Part(columns, rows, false, name, dtype).t();
  return Random({rows + 1, columns + 4}, name, dtype).narrow(0, 1, rows).narrow(1, 2, columns);
}

class SmallGemmTest : public testing::Test {
 protected:
  void SetUp() override {
    const at::Tensor square = at::zeros({16, 16});
    if (!Fits(square, square, square)) GTEST_SKIP() << "this processor has no AVX-512";
  }

  // c = a b and c += a b, of parts of larger matrices, with a and b as they stand or transposed.
  template <typename C, typename Factor>
  static void Check(int64_t m, int64_t n, int64_t k, bool a_turned, bool b_turned) {
    SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << (a_turned ? ", a^T" : "")
                                    << (b_turned ? ", b^T" : ""));
    const auto c_type = c10::CppTypeToScalarType<C>::value,
               factor_type = c10::CppTypeToScalarType<Factor>::value;
    const at::Tensor a = Part(m, k, a_turned, "a", factor_type),
                     b = Part(k, n, b_turned, "b", factor_type);
    const at::Tensor before = Random({m + 1, n + 7}, "c", c_type);
    at::Tensor all = before.clone();
    const at::Tensor c = all.narrow(0, 0, m).narrow(1, 4, n);
    const auto c_view = MatrixViewOf<C>::Of(c);
    const auto a_view = MatrixViewOf<Factor>::Of(a), b_view = MatrixViewOf<Factor>::Of(b);
    ASSERT_TRUE(FitsSmallGemm(c_view, a_view, b_view));
    SmallGemm(c_view, a_view, b_view, /*add=*/false);
    // Sums of k products in float32, and one rounding of c.
    const at::Tensor exact = Exact(a, b);
    const double rounding = c_type == at::kBFloat16 ? std::ldexp(1.0, -8) : 0.0;
    const auto tolerance = [&](const at::Tensor& value) {
      return 1e-6 * (1.0 + static_cast<double>(k)) + rounding * value.abs();
    };
    const at::Tensor first = c.to(at::kDouble);
    EXPECT_TRUE((first - exact).abs().le(tolerance(exact)).all().template item<bool>());
    SmallGemm(c_view, a_view, b_view, /*add=*/true);
    const at::Tensor twice = first + exact;
    EXPECT_TRUE((c.to(at::kDouble) - twice).abs().le(tolerance(twice)).all().template item<bool>());
    // What surrounds c is as it was.
    c.copy_(before.narrow(0, 0, m).narrow(1, 4, n));
    EXPECT_TRUE(all.equal(before));
  }

  template <typename C, typename Factor>
  static void CheckSizes(int64_t fewest_rows_of_b_turned) {
    for (const int64_t n : {16, 32, 48, 64, 80, 112, 768}) {
      for (int64_t m = 1; m <= 20; ++m) {
        Check<C, Factor>(m, n, /*k=*/2 * m + 2, /*a_turned=*/false, /*b_turned=*/false);
        Check<C, Factor>(m, n, /*k=*/m + 3, /*a_turned=*/true, /*b_turned=*/false);
        for (const bool a_turned : {false, true}) {
          Check<C, Factor>(m, n, fewest_rows_of_b_turned * (1 + m % 3), a_turned, true);
        }
      }
    }
    Check<C, Factor>(256, 64, 768, false, false);
    Check<C, Factor>(64, 768, 64, false, true);
    Check<C, Factor>(768, 64, 67, true, false);
    Check<C, Factor>(200, 144, 67, true, false);
  }
};

class Bf16SmallGemmTest : public SmallGemmTest {
 protected:
  void SetUp() override {
    if (!HasBf16Gemm()) GTEST_SKIP() << "this processor has no AVX512_BF16";
  }
};

TEST_F(SmallGemmTest, EqualsFloat64ForAllSizesAndStrides) { CheckSizes<float, float>(16); }

TEST_F(Bf16SmallGemmTest, EqualsFloat64ForAllSizesAndStrides) {
  CheckSizes<float, c10::BFloat16>(32);
  CheckSizes<c10::BFloat16, c10::BFloat16>(32);
}

TEST_F(Bf16SmallGemmTest, LeavesOtherMatricesToLibraries) {
  const auto fits = [](const at::Tensor& c, const at::Tensor& a, const at::Tensor& b) {
    return FitsSmallGemm(MatrixView::Of(c), Bf16MatrixView::Of(a), Bf16MatrixView::Of(b));
  };
  const auto bf16 = [](int64_t rows, int64_t columns) {
    return at::zeros({rows, columns}, at::kBFloat16);
  };
  const at::Tensor c = at::zeros({4, 32});
  EXPECT_TRUE(fits(c, bf16(4, 24), bf16(24, 32)));
  EXPECT_TRUE(fits(c, bf16(23, 4).t(), bf16(23, 32)));
  EXPECT_TRUE(fits(c, bf16(4, 32), bf16(32, 32).t()));
  EXPECT_FALSE(fits(c, bf16(4, 23), bf16(23, 32)));                   // an odd number of columns
  EXPECT_FALSE(fits(c, bf16(4, 25).narrow(1, 0, 24), bf16(24, 32)));  // rows that start at odd ones
  EXPECT_FALSE(fits(c, bf16(4, 48).slice(1, 0, 48, 2), bf16(24, 32)));
  EXPECT_FALSE(fits(c, bf16(4, 16), bf16(32, 16).t()));  // transposed, 16 rows
  EXPECT_FALSE(fits(at::zeros({4, 24}), bf16(4, 24), bf16(24, 24)));
}

TEST_F(SmallGemmTest, SumOfNothingIsZero) {
  const at::Tensor c = at::full({3, 32}, 7.0, at::kFloat);
  const at::Tensor a = at::empty({3, 0}), b = at::empty({0, 32});
  SmallGemm(MatrixView::Of(c), MatrixView::Of(a), MatrixView::Of(b), /*add=*/true);
  EXPECT_TRUE(c.eq(7.0).all().item<bool>());
  SmallGemm(MatrixView::Of(c), MatrixView::Of(a), MatrixView::Of(b), /*add=*/false);
  EXPECT_TRUE(c.eq(0.0).all().item<bool>());
}

// A row of a result is the same whichever rows are computed with it: pieces may be cut anywhere.
TEST_F(SmallGemmTest, RowsDoNotDependOnTheirNeighbours) {
  const at::Tensor a = Random({23, 96}, "a", at::kFloat), b = Random({96, 80}, "b", at::kFloat);
  const at::Tensor all = at::zeros({23, 80}), one = at::zeros({23, 80});
  SmallGemm(MatrixView::Of(all), MatrixView::Of(a), MatrixView::Of(b), false);
  for (int64_t row = 0; row < 23; ++row) {
    SmallGemm(MatrixView::Of(one).Block(row, 0, 1, 80), MatrixView::Of(a).Block(row, 0, 1, 96),
              MatrixView::Of(b), false);
  }
  EXPECT_TRUE(all.equal(one));
}

TEST_F(SmallGemmTest, LeavesOtherMatricesToLibraries) {
  const at::Tensor a = at::zeros({4, 24}), b = at::zeros({24, 32}), c = at::zeros({4, 32});
  EXPECT_TRUE(Fits(c, a, b));
  EXPECT_TRUE(Fits(c, at::zeros({24, 4}).t(), b));
  EXPECT_FALSE(Fits(at::zeros({4, 24}), a, at::zeros({24, 24})));  // 24 columns
  EXPECT_FALSE(Fits(c, a, at::zeros({32, 24}).t()));               // transposed, 24 rows
  EXPECT_FALSE(Fits(at::zeros({32, 4}).t(), a, b));                // columns apart
  EXPECT_FALSE(Fits(c, a, at::zeros({48, 64}).slice(0, 0, 48, 2).slice(1, 0, 64, 2)));
  EXPECT_FALSE(Fits(c, at::zeros({4, 23}), b));  // no product
}

}  // namespace
}  // namespace hypermoe
