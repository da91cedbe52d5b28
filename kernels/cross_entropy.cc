#include "kernels/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/cross_entropy_arguments.h"
#include "kernels/element_type_of.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// [T] each: log(sum of exp(logits)), and what a token adds to the loss.
struct TokenLosses {
  at::Tensor lse_T, loss_T;
};

// A CPU takes LibTorch's operators. Calls body(begin, rows) for pieces of rows that stay in a
// cache.
template <typename Body>
void ForEachPiece(const at::Tensor& logits_TV, const Body& body) {
  constexpr int64_t kPieceElements = 1 << 19;
  const int64_t tokens = logits_TV.size(0);
  const int64_t rows =
      std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, logits_TV.size(1)));
  for (int64_t begin = 0; begin < tokens; begin += rows) {
    body(begin, std::min(rows, tokens - begin));
  }
}

// An ignored label names no logit: any does, and it counts nothing.
struct CountedLabels {
  CountedLabels(const at::Tensor& labels_T, int64_t ignored)
      : counted_T(labels_T.ne(ignored)),
        index_T(labels_T.masked_fill(counted_T.logical_not(), 0)) {}
  at::Tensor counted_T, index_T;
};

void ForwardOnCpu(const at::Tensor& logits, const at::Tensor& labels, int64_t ignored,
                  TokenLosses& out) {
  const at::ScalarType precise = out.lse_T.scalar_type();
  ForEachPiece(logits, [&](int64_t begin, int64_t rows) {
    out.lse_T.narrow(0, begin, rows)
        .copy_(at::logsumexp(logits.narrow(0, begin, rows).to(precise), 1));
  });
  const CountedLabels label(labels, ignored);
  const at::Tensor chosen_T = logits.gather(1, label.index_T.unsqueeze(1)).squeeze(1).to(precise);
  out.loss_T = (out.lse_T - chosen_T) * label.counted_T;
}

// Row by row over the logits.
void BackwardOnCpu(const at::Tensor& logits, const at::Tensor& labels, int64_t ignored,
                   const at::Tensor& lse_T, const at::Tensor& factor) {
  const CountedLabels label(labels, ignored);
  const at::Tensor factor_T = label.counted_T * factor;
  ForEachPiece(logits, [&](int64_t begin, int64_t rows) {
    const auto column = [&](const at::Tensor& per_token) {
      return per_token.narrow(0, begin, rows).unsqueeze(1);
    };
    const at::Tensor piece = logits.narrow(0, begin, rows);
    const at::Tensor gradient = piece.to(lse_T.scalar_type());  // itself, if it is precise
    gradient.sub_(column(lse_T)).exp_().mul_(column(factor_T));
    gradient.scatter_add_(1, column(label.index_T), -column(factor_T));
    if (!gradient.is_same(piece)) piece.copy_(gradient);
  });
}

CrossEntropyArguments ArgumentsOf(const at::Tensor& logits, const at::Tensor& labels,
                                  int64_t ignored) {
  return {ElementTypeOf(logits.scalar_type(), "SumCrossEntropy"), labels.const_data_ptr<int64_t>(),
          ignored, logits.size(0), logits.size(1)};
}

class SumCrossEntropyFunction : public torch::autograd::Function<SumCrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& labels, double divisor, int64_t ignored) {
    const at::TensorOptions precise = logits.options().requires_grad(false).dtype(
        logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    TokenLosses out = {at::empty({logits.size(0)}, precise), {}};
    if (logits.is_cuda()) {
      out.loss_T = at::empty({logits.size(0)}, precise);
      cuda::CrossEntropy(ArgumentsOf(logits, labels, ignored), logits.const_data_ptr(),
                         out.lse_T.mutable_data_ptr(), out.loss_T.mutable_data_ptr());
    } else {
      ForwardOnCpu(logits, labels, ignored, out);
    }
    ctx->save_for_backward({logits, labels, out.lse_T});
    ctx->saved_data["divisor"] = divisor;
    ctx->saved_data["ignored"] = ignored;
    return out.loss_T.sum() / divisor;
  }

  // (softmax - one_hot) * gradient / divisor.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &labels = saved[1], &lse_T = saved[2];
    const int64_t ignored = ctx->saved_data["ignored"].toInt();
    const at::Tensor factor = grads[0] / ctx->saved_data["divisor"].toDouble();
    if (logits.is_cuda()) {
      cuda::CrossEntropyBackward(ArgumentsOf(logits, labels, ignored), lse_T.const_data_ptr(),
                                 factor.const_data_ptr(), logits.mutable_data_ptr());
      // So that autograd refuses to use what was overwritten, as after operators in place.
      logits.unsafeGetTensorImpl()->bump_version();
    } else {
      BackwardOnCpu(logits, labels, ignored, lse_T, factor);
    }
    return {logits, {}, {}, {}};
  }
};

}  // namespace

at::Tensor SumCrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_T, double divisor,
                           int64_t ignored) {
  ElementTypeOf(logits_TV.scalar_type(), "SumCrossEntropy");
  TORCH_CHECK(logits_TV.dim() == 2 && labels_T.dim() == 1 && labels_T.size(0) == logits_TV.size(0),
              "cross-entropy: labels of shape ", labels_T.sizes(), " do not fit logits of shape ",
              logits_TV.sizes());
  TORCH_CHECK(labels_T.scalar_type() == at::kLong && labels_T.device() == logits_TV.device(),
              "cross-entropy: labels of ", labels_T.scalar_type(), " on ", labels_T.device(),
              ", expected int64 on ", logits_TV.device(), " with the logits");
  return SumCrossEntropyFunction::apply(logits_TV.contiguous(), labels_T.contiguous(), divisor,
                                        ignored);
}

}  // namespace hypermoe
