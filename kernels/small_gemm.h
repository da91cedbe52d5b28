// Products of small matrices by the calling thread alone, in registers of AVX-512: for HyperExperts
// and their generation, whose matrices have one short side. Libraries spend a part of such a
// product on packing and on finding the kernel, and write results of their own.
//
// float32 throughout, or bfloat16 factors with sums in float32, which the processor multiplies in
// pairs (AVX512_BF16) at twice the rate.
//
// tools/bench_small_gemm measures both.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

#include <cstdint>

namespace hypermoe {

// A matrix in memory that belongs to someone else.
template <typename Element>
struct MatrixViewOf {
  Element* data;
  int64_t rows, columns;
  int64_t row_step, column_step;  // elements from one to the next

  // Of a matrix of this type; it must outlive the view.
  static MatrixViewOf Of(const at::Tensor& matrix) {
    return {matrix.data_ptr<Element>(), matrix.size(0), matrix.size(1), matrix.stride(0),
            matrix.stride(1)};
  }
  MatrixViewOf Transposed() const { return {data, columns, rows, column_step, row_step}; }
  MatrixViewOf Block(int64_t row, int64_t column, int64_t num_rows, int64_t num_columns) const {
    return {data + row * row_step + column * column_step, num_rows, num_columns, row_step,
            column_step};
  }
};
using MatrixView = MatrixViewOf<float>;
using Bf16MatrixView = MatrixViewOf<c10::BFloat16>;

// Whether SmallGemm can make this product: the processor has AVX-512, the columns of c are a
// multiple of 16 and next to each other in memory, as those of b are; or b stands transposed, and
// has a multiple of 16 rows. a may be anything.
bool FitsSmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b);

// Memory that is needed after a product: it is fetched meanwhile.
struct Ahead {
  const char* begin = nullptr;
  int64_t bytes = 0;

  // Of a tensor without gaps; of others nothing.
  static Ahead Of(const at::Tensor& next) {
    if (!next.defined() || !next.is_contiguous()) return {};
    return {static_cast<const char*>(next.const_data_ptr()), static_cast<int64_t>(next.nbytes())};
  }
};

// c [M,N] = a [M,K] b [K,N], or += with `add`; they fit, and c overlaps neither a nor b. An
// element is summed in the order of k with fused multiply-add, whatever M and N are.
void SmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool add,
               Ahead ahead = {});

// Whether this processor multiplies bfloat16.
bool HasBf16Gemm();

// The same for bfloat16 factors, where HasBf16Gemm(); they also need rows or columns next to each
// other in memory, and where it is the columns of a or the rows of b, an even number of these.
bool FitsSmallGemm(const MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b);
bool FitsSmallGemm(const Bf16MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b);

// An element is summed in float32, two products at a time, in the order of k; subnormal factors and
// sums count as zero. A bfloat16 c is rounded once, to nearest even.
void SmallGemm(const MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b, bool add,
               Ahead ahead = {});
void SmallGemm(const Bf16MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b, bool add,
               Ahead ahead = {});

// c = a b, or += with `add`, of matrices whose dtypes one of the above takes; false, and nothing
// done, if none does or the product does not fit.
bool TrySmallGemm(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, bool add,
                  Ahead ahead = {});

}  // namespace hypermoe
