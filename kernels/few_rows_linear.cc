#include "kernels/few_rows_linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "kernels/side_by_side.h"
#include "kernels/small_gemm.h"

namespace hypermoe {
namespace {

constexpr int64_t kMostRows = 128;                  // from about there on libraries are as fast
constexpr int64_t kLargeMatrix = int64_t{1} << 19;  // elements
// A slice of the matrix, some of its rows: as large as leaves room in a cache of 1 MiB for its
// gradient and the gradients that it meets.
constexpr int64_t kSliceElements = int64_t{1} << 14;
constexpr int64_t kAlign = 16;  // SmallGemm wants multiples of it
// So many parts are worked on side by side, and each has its own sum for the gradient of x,
// whatever the number of threads is. With 64 it takes 4 to 10 % longer: what is ahead is fetched
// within a part.
constexpr int64_t kParts = 16;

int64_t RoundedUp(int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

int64_t RowsOfSlice(int64_t width) {
  return RoundedUp(std::max<int64_t>(kSliceElements / width, 1));
}

// Calls body(part, first row, rows) for the slices of all rows: each part's in order, parts side by
// side.
template <typename Body>
void ForEachSlice(int64_t rows, int64_t width, const Body& body) {
  const int64_t in_part = RoundedUp((rows + kParts - 1) / kParts), step = RowsOfSlice(width);
  SideBySide(kParts, [&](int64_t part) {
    const int64_t end = std::min((part + 1) * in_part, rows);
    for (int64_t v = part * in_part; v < end; v += step) body(part, v, std::min(step, end - v));
  });
}

// What follows rows [begin, begin + count), as much of it as they are.
Ahead NextSlice(const MatrixView& all, int64_t begin, int64_t count) {
  const int64_t next = begin + count;
  const int64_t elements = std::min(count, all.rows - next) * all.columns;
  return {reinterpret_cast<const char*>(all.data + next * all.row_step),
          elements * static_cast<int64_t>(sizeof(float))};
}

// Columns [begin, begin + count) of `all`, with rows that do not meet in the same sets of a cache,
// as those of a power of two of bytes apart do.
MatrixView CopyOfColumns(const MatrixView& all, int64_t begin, int64_t count,
                         std::vector<float>* memory) {
  const int64_t row_step = RoundedUp(count) + kAlign;
  memory->resize(std::max(memory->size(), static_cast<size_t>(all.rows * row_step)));
  for (int64_t r = 0; r < all.rows; ++r) {
    std::copy_n(all.data + r * all.row_step + begin, count, memory->data() + r * row_step);
  }
  return {memory->data(), all.rows, count, row_step, 1};
}

}  // namespace

bool IsFewRowsLinear(const at::Tensor& x_RD, const at::Tensor& weight_VD) {
  if (!x_RD.is_cpu() || x_RD.scalar_type() != at::kFloat || weight_VD.scalar_type() != at::kFloat)
    return false;
  const int64_t rows = x_RD.size(0), outputs = weight_VD.size(0), width = weight_VD.size(1);
  if (rows < 1 || rows > kMostRows || outputs * width < kLargeMatrix) return false;
  if (!x_RD.is_contiguous() || !weight_VD.is_contiguous()) return false;
  const MatrixView x = MatrixView::Of(x_RD), weight = MatrixView::Of(weight_VD);
  const MatrixView result = {nullptr, rows, outputs, outputs, 1};
  return FitsSmallGemm(result, x, weight.Transposed()) && FitsSmallGemm(x, result, weight);
}

at::Tensor FewRowsLinear(const at::Tensor& x_RD, const at::Tensor& weight_VD,
                         const at::Tensor& bias_V) {
  const int64_t rows = x_RD.size(0), outputs = weight_VD.size(0), width = weight_VD.size(1);
  const at::Tensor y_RV = at::empty({rows, outputs}, x_RD.options().requires_grad(false));
  const MatrixView x = MatrixView::Of(x_RD), weight = MatrixView::Of(weight_VD),
                   y = MatrixView::Of(y_RV);
  const at::Tensor bias = bias_V.defined() ? bias_V.contiguous() : bias_V;
  ForEachSlice(outputs, width, [&](int64_t, int64_t begin, int64_t count) {
    const MatrixView out = y.Block(0, begin, rows, count);
    for (int64_t r = 0; bias.defined() && r < rows; ++r) {
      std::copy_n(bias.const_data_ptr<float>() + begin, count, out.data + r * out.row_step);
    }
    SmallGemm(out, x, weight.Block(begin, 0, count, width).Transposed(), bias.defined(),
              NextSlice(weight, begin, count));
  });
  return y_RV;
}

at::Tensor FewRowsLinearBackward(const at::Tensor& grad_RV, const at::Tensor& x_RD,
                                 const at::Tensor& weight_VD, bool needs_grad_x,
                                 const at::Tensor& grad_weight_VD) {
  const int64_t rows = x_RD.size(0), outputs = weight_VD.size(0), width = weight_VD.size(1);
  const at::TensorOptions options = x_RD.options().requires_grad(false);
  const at::Tensor grad_x_PRD =
      needs_grad_x ? at::zeros({kParts, rows, width}, options) : at::Tensor();
  const MatrixView grad = MatrixView::Of(grad_RV), x = MatrixView::Of(x_RD),
                   weight = MatrixView::Of(weight_VD);
  ForEachSlice(outputs, width, [&](int64_t part, int64_t begin, int64_t count) {
    static thread_local std::vector<float> memory;
    const MatrixView grad_slice = CopyOfColumns(grad, begin, count, &memory);
    if (needs_grad_x) {
      SmallGemm(MatrixView::Of(grad_x_PRD.select(0, part)), grad_slice,
                weight.Block(begin, 0, count, width), /*add=*/true,
                NextSlice(weight, begin, count));
    }
    if (grad_weight_VD.defined()) {
      const MatrixView sum = MatrixView::Of(grad_weight_VD);
      SmallGemm(sum.Block(begin, 0, count, width), grad_slice.Transposed(), x, /*add=*/true,
                NextSlice(sum, begin, count));
    }
  });
  return needs_grad_x ? at::sum(grad_x_PRD, 0) : at::Tensor();
}

}  // namespace hypermoe
