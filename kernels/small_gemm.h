// Products of small float32 matrices by the calling thread alone, in registers of AVX-512: for
// HyperExperts and their generation, whose matrices have one short side. Libraries spend a part of
// such a product on packing and on finding the kernel, and write results of their own.
//
// tools/bench_small_gemm measures both.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hypermoe {

// A matrix in memory that belongs to someone else.
struct MatrixView {
  float* data;
  int64_t rows, columns;
  int64_t row_step, column_step;  // elements from one to the next

  // Of a float32 matrix; it must outlive the view.
  static MatrixView Of(const at::Tensor& matrix);
  MatrixView Transposed() const { return {data, columns, rows, column_step, row_step}; }
  MatrixView Block(int64_t row, int64_t column, int64_t num_rows, int64_t num_columns) const {
    return {data + row * row_step + column * column_step, num_rows, num_columns, row_step,
            column_step};
  }
};

// Whether SmallGemm can make this product: the processor has AVX-512, the columns of c are a
// multiple of 16 and next to each other in memory, as those of b are; or b stands transposed, and
// has a multiple of 16 rows. a may be anything.
bool FitsSmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b);

// Memory that is needed after a product: it is fetched meanwhile.
struct Ahead {
  const float* begin = nullptr;
  int64_t count = 0;
};

// c [M,N] = a [M,K] b [K,N], or += with `add`; they fit, and c overlaps neither a nor b. An
// element is summed in the order of k with fused multiply-add, whatever M and N are.
void SmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool add,
               Ahead ahead = {});

}  // namespace hypermoe
