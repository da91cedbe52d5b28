#include "kernels/small_gemm.h"

#include <algorithm>
#include <vector>

namespace hypermoe {
namespace {

#if defined(__x86_64__)
#define HYPERMOE_AVX512 [[gnu::target("avx512f,fma")]]
bool HasAvx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
  return has;
}
#else
#define HYPERMOE_AVX512
bool HasAvx512() { return false; }
#endif
// What is inlined into a function is compiled for its instruction set.
#define HYPERMOE_INLINED [[gnu::always_inline]] inline

constexpr int kLanes = 16;
using Lanes [[gnu::vector_size(4 * kLanes), gnu::aligned(4), gnu::may_alias]] = float;

// Vectors of a row that are worked on at once, and the rows that go with so many: sums of 24, 16 or
// 8 vectors stay in the 32 registers, and there are more of them than a multiply-add takes cycles.
constexpr int kMostVectors = 4;
template <int kVectors>
constexpr int kMostRows = kVectors == kMostVectors ? 6 : 8;

Lanes& At(float* p) { return *reinterpret_cast<Lanes*>(p); }

// kRows rows of c from its first kVectors vectors on.
template <int kRows, int kVectors>
HYPERMOE_INLINED void Tile(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool add,
                           Ahead* ahead) {
  Lanes sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      // Here by the time it is written.
      __builtin_prefetch(c.data + r * c.row_step + v * kLanes, /*rw=*/1);
      sum[r][v] = Lanes{};
    }
  }
  // A cache line of what is ahead with every k; where nothing is, one that is here already.
  const float* fetched = ahead->count > 0 ? ahead->begin : c.data;
  const int64_t fetched_step = ahead->count > 0 ? kLanes : 0;
  for (int64_t k = 0; k < a.columns; ++k) {
    __builtin_prefetch(fetched + k * fetched_step);
    const float* a_k = a.data + k * a.column_step;
    float* b_k = b.data + k * b.row_step;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] += At(b_k + v * kLanes) * a_k[r * a.row_step];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Lanes& out = At(c.data + r * c.row_step + v * kLanes);
      out = add ? out + sum[r][v] : sum[r][v];
    }
  }
  ahead->begin += a.columns * fetched_step;
  ahead->count -= a.columns * fetched_step;
}

// The last rows of c, at most kRows.
template <int kRows, int kVectors>
HYPERMOE_INLINED void LastRows(const MatrixView& c, const MatrixView& a, const MatrixView& b,
                               bool add, Ahead* ahead) {
  if (c.rows == kRows) {
    Tile<kRows, kVectors>(c, a, b, add, ahead);
  } else if constexpr (kRows > 1) {
    LastRows<kRows - 1, kVectors>(c, a, b, add, ahead);
  }
}

// All rows of c; its first kVectors vectors.
template <int kVectors>
HYPERMOE_INLINED void Columns(MatrixView c, MatrixView a, const MatrixView& b, bool add,
                              Ahead* ahead) {
  constexpr int kRows = kMostRows<kVectors>;
  while (c.rows > kRows) {
    Tile<kRows, kVectors>(c, a, b, add, ahead);
    c = c.Block(kRows, 0, c.rows - kRows, c.columns);
    a = a.Block(kRows, 0, a.rows - kRows, a.columns);
  }
  LastRows<kRows, kVectors>(c, a, b, add, ahead);
}

HYPERMOE_AVX512 void Columns4(const MatrixView& c, const MatrixView& a, const MatrixView& b,
                              bool add, Ahead* ahead) {
  Columns<4>(c, a, b, add, ahead);
}
HYPERMOE_AVX512 void Columns2(const MatrixView& c, const MatrixView& a, const MatrixView& b,
                              bool add, Ahead* ahead) {
  Columns<2>(c, a, b, add, ahead);
}
HYPERMOE_AVX512 void Columns1(const MatrixView& c, const MatrixView& a, const MatrixView& b,
                              bool add, Ahead* ahead) {
  Columns<1>(c, a, b, add, ahead);
}

// to[j, i] = from[i, j] for 16 x 16 elements: four times, the rows of both halves are dealt into
// each other like cards.
HYPERMOE_AVX512 void TransposeTile(float* to, int64_t to_step, float* from, int64_t from_step) {
  Lanes rows[2][kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) rows[0][i] = At(from + i * from_step);
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    const Lanes* in = rows[round % 2];
    Lanes* out = rows[1 - round % 2];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      const Lanes x = in[i], y = in[i + kLanes / 2];
      out[2 * i] =
          __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      out[2 * i + 1] = __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                               14, 30, 15, 31);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) At(to + i * to_step) = rows[0][i];
}

// A copy, in memory of the calling thread, of a matrix that stands transposed.
MatrixView Untransposed(const MatrixView& b) {
  static thread_local std::vector<float> memory;
  memory.resize(std::max(memory.size(), static_cast<size_t>(b.rows * b.columns)));
  const MatrixView copy = {memory.data(), b.rows, b.columns, b.columns, 1};
  for (int64_t k = 0; k < b.rows; k += kLanes) {
    for (int64_t n = 0; n < b.columns; n += kLanes) {
      TransposeTile(copy.data + k * copy.row_step + n, copy.row_step,
                    b.data + k + n * b.column_step, b.column_step);
    }
  }
  return copy;
}

}  // namespace

MatrixView MatrixView::Of(const at::Tensor& matrix) {
  return {matrix.data_ptr<float>(), matrix.size(0), matrix.size(1), matrix.stride(0),
          matrix.stride(1)};
}

bool FitsSmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b) {
  return HasAvx512() && c.rows == a.rows && c.columns == b.columns && a.columns == b.rows &&
         c.columns % kLanes == 0 && c.column_step == 1 &&
         (b.column_step == 1 || (b.row_step == 1 && b.rows % kLanes == 0));
}

void SmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool add,
               Ahead ahead) {
  for (int64_t n = 0, width = 0; n < c.columns; n += width) {
    const int64_t vectors = std::min<int64_t>((c.columns - n) / kLanes, kMostVectors);
    width = (vectors == 3 ? 2 : vectors) * kLanes;
    const MatrixView c_n = c.Block(0, n, c.rows, width);
    MatrixView b_n = b.Block(0, n, b.rows, width);
    if (b.column_step != 1) b_n = Untransposed(b_n);
    (width == 4 * kLanes   ? Columns4
     : width == 2 * kLanes ? Columns2
                           : Columns1)(c_n, a, b_n, add, &ahead);
  }
}

}  // namespace hypermoe
