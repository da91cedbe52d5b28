#include "kernels/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::ScalarType PreciseDtype(const at::Tensor& logits) {
  return logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Calls body(begin, rows) for pieces of rows that stay in a cache.
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

class SumCrossEntropyFunction : public torch::autograd::Function<SumCrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& labels, double divisor, int64_t ignored) {
    const at::ScalarType precise = PreciseDtype(logits);
    const at::Tensor lse_T = at::empty({logits.size(0)}, precise);
    ForEachPiece(logits, [&](int64_t begin, int64_t rows) {
      lse_T.narrow(0, begin, rows)
          .copy_(at::logsumexp(logits.narrow(0, begin, rows).to(precise), 1));
    });
    // An ignored label names no logit: any does, and it counts nothing.
    const at::Tensor counted_T = labels.ne(ignored);
    const at::Tensor index_T = labels.masked_fill(counted_T.logical_not(), 0);
    const at::Tensor chosen_T = logits.gather(1, index_T.unsqueeze(1)).squeeze(1).to(precise);
    ctx->save_for_backward({logits, lse_T, counted_T, index_T});
    ctx->saved_data["divisor"] = divisor;
    return ((lse_T - chosen_T) * counted_T).sum() / divisor;
  }

  // (softmax - one_hot) * gradient / divisor, row by row over the logits.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &lse_T = saved[1], &counted_T = saved[2],
                     &index_T = saved[3];
    const at::Tensor factor_T = counted_T * (grads[0] / ctx->saved_data["divisor"].toDouble());
    ForEachPiece(logits, [&](int64_t begin, int64_t rows) {
      const auto column = [&](const at::Tensor& per_token) {
        return per_token.narrow(0, begin, rows).unsqueeze(1);
      };
      const at::Tensor piece = logits.narrow(0, begin, rows);
      const at::Tensor gradient = piece.to(lse_T.scalar_type());  // itself, if it is precise
      gradient.sub_(column(lse_T)).exp_().mul_(column(factor_T));
      gradient.scatter_add_(1, column(index_T), -column(factor_T));
      if (!gradient.is_same(piece)) piece.copy_(gradient);
    });
    return {logits, {}, {}, {}};
  }
};

}  // namespace

at::Tensor SumCrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_T, double divisor,
                           int64_t ignored) {
  TORCH_CHECK(logits_TV.dim() == 2 && labels_T.dim() == 1 && labels_T.size(0) == logits_TV.size(0),
              "cross-entropy: labels of shape ", labels_T.sizes(), " do not fit logits of shape ",
              logits_TV.sizes());
  return SumCrossEntropyFunction::apply(logits_TV.contiguous(), labels_T, divisor, ignored);
}

}  // namespace hypermoe
