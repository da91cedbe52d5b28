#include "kernels/biased_attention.h"

#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "kernels/keyed_dropout.h"
#include "kernels/optional_tensor.h"
#include "kernels/side_by_side.h"
#include "kernels/small_gemm.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Scores that a thread has at once: three matrices of so many stay in its second cache.
constexpr int64_t kPieceScores = int64_t{1} << 15;
constexpr int64_t kLeastQueries = 16;  // of a piece: with fewer, products are slow

at::ScalarType PreciseOf(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

// c = a b, or c += a b, by this thread. a and b have one dtype; that of c may be wider.
void Product(at::Tensor c, const at::Tensor& a, const at::Tensor& b, bool add) {
  if (TrySmallGemm(c, a, b, add)) return;
  const at::Tensor wide_a = a.to(c.scalar_type()), wide_b = b.to(c.scalar_type());
  if (add) {
    at::addmm_out(c, c, wide_a, wide_b);
  } else {
    at::mm_out(c, wide_a, wide_b);
  }
}

// Some queries of one head of one row.
struct Piece {
  int64_t row, head, begin, count;
};

// Of [B,H,*,C]: the matrix of the piece's head, and of that the piece's queries.
at::Tensor OfHead(const at::Tensor& all, const Piece& piece) {
  return all.select(0, piece.row).select(0, piece.head);
}
at::Tensor OfPiece(const at::Tensor& all, const Piece& piece) {
  return OfHead(all, piece).narrow(0, piece.begin, piece.count);
}

// Elements of a head next to each other.
at::Tensor Dense(const at::Tensor& heads) {
  return heads.stride(3) == 1 ? heads : heads.contiguous();
}

// In the order in which the projections before and after attention have the elements.
at::Tensor EmptyHeads(const at::Tensor& like_BHSC) {
  const int64_t rows = like_BHSC.size(0), heads = like_BHSC.size(1), positions = like_BHSC.size(2);
  return at::empty({rows, positions, heads, like_BHSC.size(3)},
                   like_BHSC.options().requires_grad(false))
      .transpose(1, 2);
}

// What probabilities come from, in forward and once more in backward.
struct Scoring {
  at::Tensor q_BHSC, k_BHLC, v_BHLC;
  at::Tensor bias_HSL, mask;  // precise; undefined: none
  at::Tensor kept_BHSL;       // by dropout; undefined: all
  double probability;         // of dropout

  int64_t rows() const { return q_BHSC.size(0); }
  int64_t heads() const { return q_BHSC.size(1); }
  int64_t queries() const { return q_BHSC.size(2); }
  int64_t keys() const { return k_BHLC.size(2); }

  int64_t QueriesOfPiece() const {
    return std::min(queries(), std::max(kLeastQueries, kPieceScores / keys()));
  }
  // A matrix for the scores of a piece, to be cut to its queries.
  at::Tensor EmptyScores() const {
    return at::empty({QueriesOfPiece(), keys()},
                     q_BHSC.options().dtype(PreciseOf(q_BHSC.scalar_type())).requires_grad(false));
  }

  // Calls body(piece) for all queries of a head, in order.
  template <typename Body>
  void ForEachPiece(int64_t row, int64_t head, const Body& body) const {
    for (int64_t begin = 0; begin < queries(); begin += QueriesOfPiece()) {
      body(Piece{row, head, begin, std::min(QueriesOfPiece(), queries() - begin)});
    }
  }

  // softmax, before dropout; `scores` is overwritten.
  void Probabilities(const Piece& piece, at::Tensor scores, at::Tensor probs) const {
    Product(scores, OfPiece(q_BHSC, piece), OfHead(k_BHLC, piece).t(), /*add=*/false);
    if (bias_HSL.defined())
      scores.add_(bias_HSL.select(0, piece.head).narrow(0, piece.begin, piece.count));
    if (mask.defined()) {
      const at::Tensor of_row = mask.select(0, mask.size(0) == 1 ? 0 : piece.row).select(0, 0);
      scores.add_(of_row.size(0) == 1 ? of_row : of_row.narrow(0, piece.begin, piece.count));
    }
    at::_softmax_out(probs, scores, 1, /*half_to_float=*/false);
  }
  // out = `from` with dropout; they may be one.
  void Drop(const Piece& piece, const at::Tensor& out, const at::Tensor& from) const {
    DropInto(out, from, OfPiece(kept_BHSL, piece), probability);
  }
};

at::Tensor Forward(const Scoring& in) {
  const at::Tensor y_BHSC = EmptyHeads(in.q_BHSC);
  SideBySide(in.rows() * in.heads(), [&](int64_t i) {
    const at::Tensor all_scores = in.EmptyScores(), all_probs = in.EmptyScores();
    in.ForEachPiece(i / in.heads(), i % in.heads(), [&](const Piece& piece) {
      const at::Tensor probs = all_probs.narrow(0, 0, piece.count);
      in.Probabilities(piece, all_scores.narrow(0, 0, piece.count), probs);
      if (in.kept_BHSL.defined()) in.Drop(piece, probs, probs);
      Product(OfPiece(y_BHSC, piece), probs.to(y_BHSC.scalar_type()), OfHead(in.v_BHLC, piece),
              /*add=*/false);
    });
  });
  return y_BHSC;
}

struct Gradients {
  at::Tensor q_BHSC, k_BHLC, v_BHLC;
  at::Tensor bias_HSL;  // precise; undefined: not wanted
};

// The part of one head of one row; adds to the bias's.
void BackwardOfHead(const Scoring& in, const at::Tensor& grad_BHSC, int64_t row, int64_t head,
                    const Gradients& out) {
  const at::ScalarType dtype = in.q_BHSC.scalar_type();
  const at::Tensor all_scores = in.EmptyScores(), all_probs = in.EmptyScores(),
                   all_grads = in.EmptyScores();
  const at::TensorOptions precise = all_scores.options();
  const at::Tensor k_LC = at::zeros({in.keys(), in.k_BHLC.size(3)}, precise),
                   v_LC = at::zeros({in.keys(), in.v_BHLC.size(3)}, precise);
  in.ForEachPiece(row, head, [&](const Piece& piece) {
    at::Tensor scores = all_scores.narrow(0, 0, piece.count),
               probs = all_probs.narrow(0, 0, piece.count),
               grads = all_grads.narrow(0, 0, piece.count);
    const at::Tensor grad = OfPiece(grad_BHSC, piece);
    in.Probabilities(piece, scores, probs);
    Product(grads, grad, OfHead(in.v_BHLC, piece).t(), /*add=*/false);
    at::Tensor dropped = probs;
    if (in.kept_BHSL.defined()) {
      dropped = scores;
      in.Drop(piece, dropped, probs);
      in.Drop(piece, grads, grads);
    }
    Product(v_LC, dropped.to(dtype).t(), grad, /*add=*/true);
    at::_softmax_backward_data_out(scores, grads, probs, 1, scores.scalar_type());
    if (out.bias_HSL.defined())
      out.bias_HSL.select(0, head).narrow(0, piece.begin, piece.count).add_(scores);
    const at::Tensor grad_scores = scores.to(dtype);
    Product(OfPiece(out.q_BHSC, piece), grad_scores, OfHead(in.k_BHLC, piece), /*add=*/false);
    Product(k_LC, grad_scores.t(), OfPiece(in.q_BHSC, piece), /*add=*/true);
  });
  const Piece whole = {row, head, 0, in.queries()};
  OfHead(out.k_BHLC, whole).copy_(k_LC);
  OfHead(out.v_BHLC, whole).copy_(v_LC);
}

// One thread adds up the bias's gradient of a head, over the rows in order.
Gradients Backward(const Scoring& in, const at::Tensor& grad_BHSC, bool bias_is_wanted) {
  Gradients out = {EmptyHeads(in.q_BHSC), EmptyHeads(in.k_BHLC), EmptyHeads(in.v_BHLC), {}};
  if (bias_is_wanted) out.bias_HSL = at::zeros(in.bias_HSL.sizes(), in.bias_HSL.options());
  const int64_t rows_at_once = bias_is_wanted ? in.rows() : 1;
  SideBySide(in.rows() * in.heads() / rows_at_once, [&](int64_t i) {
    const int64_t first = i / in.heads(), head = i % in.heads();
    for (int64_t row = first; row < first + rows_at_once; ++row) {
      BackwardOfHead(in, grad_BHSC, row, head, out);
    }
  });
  return out;
}

class BiasedAttentionFunction : public torch::autograd::Function<BiasedAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_BHSC,
                            const at::Tensor& k_BHLC, const at::Tensor& v_BHLC,
                            const std::optional<at::Tensor>& bias_HSL,
                            const std::optional<at::Tensor>& mask,
                            const std::optional<at::Tensor>& kept_BHSL, double probability) {
    const at::ScalarType dtype = q_BHSC.scalar_type();
    const at::Tensor bias = Cast(bias_HSL, dtype);
    const Scoring in = {Dense(q_BHSC),
                        Dense(k_BHLC),
                        Dense(v_BHLC),
                        bias.defined() ? bias.to(PreciseOf(dtype)) : bias,
                        mask.value_or(at::Tensor()),
                        kept_BHSL.value_or(at::Tensor()),
                        probability};
    ctx->save_for_backward({in.q_BHSC, in.k_BHLC, in.v_BHLC, in.bias_HSL, in.mask, in.kept_BHSL});
    ctx->saved_data["probability"] = probability;
    if (bias_HSL.has_value() && bias_HSL->requires_grad())
      ctx->saved_data["bias_dtype"] = static_cast<int64_t>(bias_HSL->scalar_type());
    return Forward(in);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Scoring in = {saved[0],
                        saved[1],
                        saved[2],
                        saved[3],
                        saved[4],
                        saved[5],
                        ctx->saved_data["probability"].toDouble()};
    const auto bias_dtype = ctx->saved_data.find("bias_dtype");
    const bool bias_is_wanted = bias_dtype != ctx->saved_data.end();
    Gradients out = Backward(in, Dense(grads[0]), bias_is_wanted);
    if (bias_is_wanted)
      out.bias_HSL = out.bias_HSL.to(static_cast<at::ScalarType>(bias_dtype->second.toInt()));
    return {out.q_BHSC, out.k_BHLC, out.v_BHLC, out.bias_HSL, {}, {}, {}};
  }
};

}  // namespace

at::Tensor BiasedAttention(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                           const at::Tensor& v_BHLC, const at::Tensor& bias_HSL,
                           const at::Tensor& mask, const AttentionDropout& dropout) {
  at::Tensor kept_BHSL;
  if (dropout.probability > 0) {
    kept_BHSL = DropoutMask({q_BHSC.size(0), q_BHSC.size(1), q_BHSC.size(2), k_BHLC.size(2)},
                            dropout.probability, dropout.key, dropout.row_ids_B);
  }
  return BiasedAttentionFunction::apply(q_BHSC, k_BHLC, v_BHLC, OptionalTensor(bias_HSL),
                                        OptionalTensor(mask), OptionalTensor(kept_BHSL),
                                        dropout.probability);
}

}  // namespace hypermoe
