#include "kernels/matrix_product.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "kernels/accumulate.h"
#include "kernels/optional_tensor.h"

namespace hypermoe {
namespace {

// Below, making a oneDNN kernel for one more number of rows (0.1 to 0.5 ms) costs more than it
// brings.
constexpr int64_t kLargeOperand = int64_t{1} << 19;  // elements of the larger one
constexpr int64_t kLargeProduct = int64_t{1} << 23;  // multiply-adds
// Terms of a sum from which a product pays for being written, read again and added (measured with
// 768 x 3072 elements).
constexpr int64_t kSeparateProductTerms = 256;

// Whether its memory is that of a matrix without gaps, as it stands or transposed. For others
// oneDNN falls back to loops that take minutes.
bool IsDense(const at::Tensor& matrix) {
  return matrix.is_contiguous() || matrix.t().is_contiguous();
}

bool TakesOneDnn(const at::Tensor& a, const at::Tensor& b) {
  const int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1);
  return a.is_cpu() && a.scalar_type() == at::kFloat &&
         std::max(a.numel(), b.numel()) >= kLargeOperand &&
         rows * inner * columns >= kLargeProduct && IsDense(a) && IsDense(b);
}

// x [M,K] times the transpose of w [N,K], plus bias.
at::Tensor OneDnnLinear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias) {
  using Signature = at::Tensor(
      const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
      c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                             .typed<Signature>();
  return op.call(x, w, OptionalTensor(bias), "none", c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace

at::Tensor MatrixProduct(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  const at::NoGradGuard no_grad;
  if (TakesOneDnn(a, b)) return OneDnnLinear(a, b.t(), bias);
  return bias.defined() ? at::addmm(bias, a, b) : at::mm(a, b);
}

void AddMatrixProduct(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  const at::NoGradGuard no_grad;
  const bool same_dtype = sum.scalar_type() == a.scalar_type();
  const bool separate = TakesOneDnn(a, b) && sum.numel() <= kLargestSeparateProduct &&
                        a.size(1) >= kSeparateProductTerms;
  if (same_dtype && !separate) {
    at::Tensor out = sum;
    at::addmm_out(out, sum, a, b);
    return;
  }
  Accumulate(sum, MatrixProduct(a, b));
}

}  // namespace hypermoe
