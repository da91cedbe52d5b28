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
bool HasAvx512Bf16() {
  static const bool has = HasAvx512() && __builtin_cpu_supports("avx512bf16");
  return has;
}
#else
#define HYPERMOE_AVX512
bool HasAvx512() { return false; }
bool HasAvx512Bf16() { return false; }
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

constexpr int64_t kLineBytes = 64;

// What is still to be fetched of what is ahead: a line with every k, or, where the product is too
// short for that, two, which then go into the second cache alone.
constexpr int kIntoSecondCache = 2;
struct Fetch {
  const char* begin;
  int64_t bytes;
  bool two_lines;

  // During a product of these rows, columns and k.
  Fetch(const Ahead& ahead, int64_t rows, int64_t columns, int64_t k)
      : begin(ahead.begin), bytes(ahead.bytes) {
    constexpr int64_t kPanel = kMostVectors * kLanes, kRows = kMostRows<kMostVectors>;
    const int64_t steps = (rows + kRows - 1) / kRows * ((columns + kPanel - 1) / kPanel) * k;
    two_lines = bytes > steps * kLineBytes;
  }
};

// Two bfloat16 that are multiplied with two others at once; the first is the lower half.
using Pair = uint32_t;
using PairMatrixView = MatrixViewOf<Pair>;
using PairLanes [[gnu::vector_size(4 * kLanes), gnu::aligned(2), gnu::may_alias]] = uint32_t;
using Bf16Lanes [[gnu::vector_size(2 * kLanes), gnu::aligned(2), gnu::may_alias]] = uint16_t;

Lanes& At(float* p) { return *reinterpret_cast<Lanes*>(p); }
PairLanes& At(Pair* p) { return *reinterpret_cast<PairLanes*>(p); }
Bf16Lanes& At(c10::BFloat16* p) { return *reinterpret_cast<Bf16Lanes*>(p); }

HYPERMOE_INLINED float Load(const float* p) { return *p; }
HYPERMOE_INLINED Pair Load(const Pair* p) {  // where bfloat16 stand
  using AnyPair [[gnu::aligned(2), gnu::may_alias]] = Pair;
  return *reinterpret_cast<const AnyPair*>(p);
}
HYPERMOE_INLINED void MultiplyAdd(Lanes* sum, const Lanes& b, float a) { *sum += b * a; }
// Instructions that GCC and Clang have different intrinsics for, and other processors none.
HYPERMOE_INLINED void MultiplyAdd(Lanes* sum, const PairLanes& b, Pair a) {
#if defined(__x86_64__)
  const PairLanes a_lanes = PairLanes{} + a;
  asm("vdpbf16ps %2, %1, %0" : "+v"(*sum) : "v"(a_lanes), "v"(b));
#endif
}
HYPERMOE_INLINED void Store(const Lanes& sum, bool add, float* c) {
  At(c) = add ? At(c) + sum : sum;
}
HYPERMOE_INLINED void Store(Lanes sum, bool add, c10::BFloat16* c) {
#if defined(__x86_64__)
  if (add) sum += reinterpret_cast<Lanes>(__builtin_convertvector(At(c), PairLanes) << 16);
  Bf16Lanes rounded;
  asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(sum));
  At(c) = rounded;
#endif
}

// kRows rows of c from its first kVectors vectors on; a and b of float32 or of pairs.
template <int kRows, int kVectors, typename C, typename Factor>
HYPERMOE_INLINED void Tile(const MatrixViewOf<C>& c, const MatrixViewOf<Factor>& a,
                           const MatrixViewOf<Factor>& b, bool add, Fetch* fetch) {
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
  // One or two lines of what is ahead with every k; where nothing is, one that is here already.
  const char* fetched = fetch->bytes > 0 ? fetch->begin : reinterpret_cast<const char*>(c.data);
  const bool two = fetch->bytes > 0 && fetch->two_lines;
  const int64_t line = fetch->bytes > 0 ? kLineBytes : 0, step = two ? 2 * line : line;
  for (int64_t k = 0; k < a.columns; ++k) {
    if (two) {
      __builtin_prefetch(fetched, /*rw=*/0, kIntoSecondCache);
      __builtin_prefetch(fetched + line, /*rw=*/0, kIntoSecondCache);
    } else {
      __builtin_prefetch(fetched);
    }
    fetched += step;
    const Factor* a_k = a.data + k * a.column_step;
    Factor* b_k = b.data + k * b.row_step;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        MultiplyAdd(&sum[r][v], At(b_k + v * kLanes), Load(a_k + r * a.row_step));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Store(sum[r][v], add, c.data + r * c.row_step + v * kLanes);
    }
  }
  fetch->begin += a.columns * step;
  fetch->bytes -= a.columns * step;
}

// The last rows of c, at most kRows.
template <int kRows, int kVectors, typename C, typename Factor>
HYPERMOE_INLINED void LastRows(const MatrixViewOf<C>& c, const MatrixViewOf<Factor>& a,
                               const MatrixViewOf<Factor>& b, bool add, Fetch* fetch) {
  if (c.rows == kRows) {
    Tile<kRows, kVectors>(c, a, b, add, fetch);
  } else if constexpr (kRows > 1) {
    LastRows<kRows - 1, kVectors>(c, a, b, add, fetch);
  }
}

// All rows of c; its first kVectors vectors.
template <int kVectors, typename C, typename Factor>
HYPERMOE_AVX512 void Columns(MatrixViewOf<C> c, MatrixViewOf<Factor> a,
                             const MatrixViewOf<Factor>& b, bool add, Fetch* fetch) {
  constexpr int kRows = kMostRows<kVectors>;
  while (c.rows > kRows) {
    Tile<kRows, kVectors>(c, a, b, add, fetch);
    c = c.Block(kRows, 0, c.rows - kRows, c.columns);
    a = a.Block(kRows, 0, a.rows - kRows, a.columns);
  }
  LastRows<kRows, kVectors>(c, a, b, add, fetch);
}

// The widest panel of columns that is worked on at once, of so many that are left.
int64_t PanelWidth(int64_t left) {
  const int64_t vectors = std::min<int64_t>(left / kLanes, kMostVectors);
  return (vectors == 3 ? 2 : vectors) * kLanes;
}

// All of c, which is one panel wide.
template <typename C, typename Factor>
void Panel(const MatrixViewOf<C>& c, const MatrixViewOf<Factor>& a, const MatrixViewOf<Factor>& b,
           bool add, Fetch* fetch) {
  (c.columns == 4 * kLanes   ? Columns<4, C, Factor>
   : c.columns == 2 * kLanes ? Columns<2, C, Factor>
                             : Columns<1, C, Factor>)(c, a, b, add, fetch);
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
template <typename Element>
MatrixViewOf<Element> Untransposed(const MatrixViewOf<Element>& b) {
  static thread_local std::vector<Element> memory;
  memory.resize(std::max(memory.size(), static_cast<size_t>(b.rows * b.columns)));
  const MatrixViewOf<Element> copy = {memory.data(), b.rows, b.columns, b.columns, 1};
  for (int64_t k = 0; k < b.rows; k += kLanes) {
    for (int64_t n = 0; n < b.columns; n += kLanes) {
      TransposeTile(reinterpret_cast<float*>(copy.data + k * copy.row_step + n), copy.row_step,
                    reinterpret_cast<float*>(b.data + k + n * b.column_step), b.column_step);
    }
  }
  return copy;
}

// Each row's neighbours as pairs.
bool HasPairs(const Bf16MatrixView& a) {
  return a.column_step == 1 && a.columns % 2 == 0 && a.row_step % 2 == 0;
}
PairMatrixView PairsOf(const Bf16MatrixView& a) {
  return {reinterpret_cast<Pair*>(a.data), a.rows, a.columns / 2, a.row_step / 2, 1};
}

// pairs[k, n] = (rows[2 k, n], rows[2 k + 1, n]), zero where rows end, in `memory`; the columns of
// `rows` stand side by side.
HYPERMOE_AVX512 PairMatrixView PairUp(const Bf16MatrixView& rows, std::vector<Pair>* memory) {
  const int64_t num_pairs = (rows.rows + 1) / 2;
  memory->resize(std::max(memory->size(), static_cast<size_t>(num_pairs * rows.columns)));
  for (int64_t k = 0; k < num_pairs; ++k) {
    c10::BFloat16* first = rows.data + 2 * k * rows.row_step;
    const bool both = 2 * k + 1 < rows.rows;
    c10::BFloat16* second = both ? first + rows.row_step : first;
    Pair* out = memory->data() + k * rows.columns;
    const uint32_t used = both ? 0xffffffffU : 0xffffU;
    int64_t n = 0;
    for (; n + kLanes <= rows.columns; n += kLanes) {
      At(out + n) = (__builtin_convertvector(At(first + n), PairLanes) |
                     __builtin_convertvector(At(second + n), PairLanes) << 16) &
                    used;
    }
    for (; n < rows.columns; ++n) out[n] = (first[n].x | uint32_t{second[n].x} << 16) & used;
  }
  return {memory->data(), num_pairs, rows.columns, rows.columns, 1};
}

template <typename C>
void Bf16Gemm(const MatrixViewOf<C>& c, const Bf16MatrixView& a, const Bf16MatrixView& b, bool add,
              Ahead ahead) {
  // Rows of a transposed a that are paired up at once, so that they are in the first cache for all
  // of the panel.
  constexpr int64_t kPairedRows = 96;
  static thread_local std::vector<Pair> a_memory, b_memory;
  Fetch fetch(ahead, c.rows, c.columns, a.columns / 2);
  const int64_t most_rows = HasPairs(a) ? c.rows : kPairedRows;
  int64_t paired_panel = -1;
  PairMatrixView b_n;
  for (int64_t m = 0; m < c.rows; m += most_rows) {
    const int64_t rows = std::min(most_rows, c.rows - m);
    const PairMatrixView a_m =
        HasPairs(a) ? PairsOf(a)
                    : PairUp(a.Block(m, 0, rows, a.columns).Transposed(), &a_memory).Transposed();
    for (int64_t n = 0, width = 0; n < c.columns; n += width) {
      width = PanelWidth(c.columns - n);
      if (n != paired_panel) {
        const Bf16MatrixView panel = b.Block(0, n, b.rows, width);
        b_n = b.column_step == 1 ? PairUp(panel, &b_memory)
                                 : Untransposed(PairsOf(panel.Transposed()).Transposed());
        paired_panel = n;
      }
      Panel(c.Block(m, n, rows, width), a_m, b_n, add, &fetch);
    }
  }
}

template <typename C>
bool FitsBf16Gemm(const MatrixViewOf<C>& c, const Bf16MatrixView& a, const Bf16MatrixView& b) {
  return HasAvx512Bf16() && c.rows == a.rows && c.columns == b.columns && a.columns == b.rows &&
         c.columns % kLanes == 0 && c.column_step == 1 && (HasPairs(a) || a.row_step == 1) &&
         (b.column_step == 1 || (HasPairs(b.Transposed()) && b.rows % (2 * kLanes) == 0));
}

}  // namespace

bool FitsSmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b) {
  return HasAvx512() && c.rows == a.rows && c.columns == b.columns && a.columns == b.rows &&
         c.columns % kLanes == 0 && c.column_step == 1 &&
         (b.column_step == 1 || (b.row_step == 1 && b.rows % kLanes == 0));
}

void SmallGemm(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool add,
               Ahead ahead) {
  Fetch fetch(ahead, c.rows, c.columns, a.columns);
  for (int64_t n = 0, width = 0; n < c.columns; n += width) {
    width = PanelWidth(c.columns - n);
    MatrixView b_n = b.Block(0, n, b.rows, width);
    if (b.column_step != 1) b_n = Untransposed(b_n);
    Panel(c.Block(0, n, c.rows, width), a, b_n, add, &fetch);
  }
}

bool HasBf16Gemm() { return HasAvx512Bf16(); }

bool FitsSmallGemm(const MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b) {
  return FitsBf16Gemm(c, a, b);
}
bool FitsSmallGemm(const Bf16MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b) {
  return FitsBf16Gemm(c, a, b);
}

void SmallGemm(const MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b, bool add,
               Ahead ahead) {
  Bf16Gemm(c, a, b, add, ahead);
}
void SmallGemm(const Bf16MatrixView& c, const Bf16MatrixView& a, const Bf16MatrixView& b, bool add,
               Ahead ahead) {
  Bf16Gemm(c, a, b, add, ahead);
}

namespace {

template <typename C, typename Factor>
bool TrySmallGemmOf(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, bool add,
                    Ahead ahead) {
  const auto c_view = MatrixViewOf<C>::Of(c);
  const auto a_view = MatrixViewOf<Factor>::Of(a), b_view = MatrixViewOf<Factor>::Of(b);
  if (!FitsSmallGemm(c_view, a_view, b_view)) return false;
  SmallGemm(c_view, a_view, b_view, add, ahead);
  return true;
}

}  // namespace

bool TrySmallGemm(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, bool add,
                  Ahead ahead) {
  const at::ScalarType sums = c.scalar_type(), factors = a.scalar_type();
  if (factors == at::kFloat && sums == at::kFloat)
    return TrySmallGemmOf<float, float>(c, a, b, add, ahead);
  if (factors == at::kBFloat16 && sums == at::kFloat)
    return TrySmallGemmOf<float, c10::BFloat16>(c, a, b, add, ahead);
  if (factors == at::kBFloat16 && sums == at::kBFloat16)
    return TrySmallGemmOf<c10::BFloat16, c10::BFloat16>(c, a, b, add, ahead);
  return false;
}

}  // namespace hypermoe
