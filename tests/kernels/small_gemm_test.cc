#include "kernels/small_gemm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace hypermoe {
namespace {

at::Tensor Exact(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.to(at::kDouble), b.to(at::kDouble));
}

double LargestError(const at::Tensor& actual, const at::Tensor& exact) {
  return (actual.to(at::kDouble) - exact).abs().max().item<double>();
}

bool Fits(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b) {
  return FitsSmallGemm(MatrixView::Of(c), MatrixView::Of(a), MatrixView::Of(b));
}

class SmallGemmTest : public testing::Test {
 protected:
  void SetUp() override {
    const at::Tensor square = at::zeros({16, 16});
    if (!Fits(square, square, square)) GTEST_SKIP() << "this processor has no AVX-512";
  }

  // c = a b and c += a b, of parts of larger matrices, with a and b as they stand or transposed.
  static void Check(int64_t m, int64_t n, int64_t k, bool a_turned, bool b_turned) {
    SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << (a_turned ? ", a^T" : "")
                                    << (b_turned ? ", b^T" : ""));
    const at::Tensor a = a_turned ? Random({k, m + 3}, "a", at::kFloat).narrow(1, 2, m).t()
                                  : Random({m, k + 3}, "a", at::kFloat).narrow(1, 2, k);
    const at::Tensor b = b_turned ? Random({n, k + 5}, "b", at::kFloat).narrow(1, 1, k).t()
                                  : Random({k, n + 5}, "b", at::kFloat).narrow(1, 1, n);
    const at::Tensor before = Random({m + 1, n + 7}, "c", at::kFloat);
    at::Tensor all = before.clone();
    const at::Tensor c = all.narrow(0, 0, m).narrow(1, 4, n);
    ASSERT_TRUE(Fits(c, a, b));
    SmallGemm(MatrixView::Of(c), MatrixView::Of(a), MatrixView::Of(b), /*add=*/false);
    const at::Tensor exact = Exact(a, b);
    const double tolerance = 1e-6 * (1.0 + static_cast<double>(k));
    EXPECT_LE(LargestError(c, exact), tolerance);
    SmallGemm(MatrixView::Of(c), MatrixView::Of(a), MatrixView::Of(b), /*add=*/true);
    EXPECT_LE(LargestError(c, 2.0 * exact), 2 * tolerance);
    // What surrounds c is as it was.
    c.copy_(before.narrow(0, 0, m).narrow(1, 4, n));
    EXPECT_TRUE(all.equal(before));
  }
};

TEST_F(SmallGemmTest, EqualsFloat64ForAllSizesAndStrides) {
  for (const int64_t n : {16, 32, 48, 64, 80, 112, 768}) {
    for (int64_t m = 1; m <= 20; ++m) {
      for (const bool a_turned : {false, true}) {
        Check(m, n, /*k=*/m + 3, a_turned, /*b_turned=*/false);
        Check(m, n, /*k=*/16 * (1 + m % 3), a_turned, /*b_turned=*/true);
      }
    }
  }
  Check(256, 64, 768, false, false);
  Check(64, 768, 64, false, true);
  Check(768, 64, 67, true, false);
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
