#include "kernels/small_ffn.h"

#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/promote_types.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "kernels/activation.h"
#include "kernels/keyed_dropout.h"
#include "kernels/optional_tensor.h"
#include "kernels/side_by_side.h"
#include "kernels/small_gemm.h"
#include "kernels/weight_gradient.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kSmallMatrix = int64_t{1} << 18;  // elements
// Rows that a thread takes at once: enough for a product at full speed, few enough that threads
// finish together.
constexpr int64_t kRowsPerPiece = 256;
// Where all that backward makes of them is made at once: few enough to stay in the second cache.
constexpr int64_t kRowsPerPass = 128;

// Some rows of one group.
struct Piece {
  int64_t group, begin, rows;
};

// Of at most `largest` rows each, in order; none for a group without rows.
std::vector<Piece> PiecesOf(const std::vector<int64_t>& rows_per_group, int64_t largest) {
  std::vector<Piece> pieces;
  int64_t begin = 0;
  for (size_t g = 0; g < rows_per_group.size(); ++g) {
    const int64_t end = begin + rows_per_group[g];
    for (; begin < end; begin += pieces.back().rows) {
      pieces.push_back({static_cast<int64_t>(g), begin, std::min(largest, end - begin)});
    }
  }
  return pieces;
}

template <typename Body>
void ForEachPiece(const std::vector<Piece>& pieces, const Body& body) {
  SideBySide(static_cast<int64_t>(pieces.size()),
             [&](int64_t i) { body(pieces[static_cast<size_t>(i)]); });
}

// Whether threads that take whole groups, the largest first, finish at about the same time.
bool GroupsFinishTogether(const std::vector<int64_t>& rows_per_group) {
  const int64_t largest = *std::max_element(rows_per_group.begin(), rows_per_group.end());
  const int64_t all = std::accumulate(rows_per_group.begin(), rows_per_group.end(), int64_t{0});
  return 2 * largest * at::get_num_threads() <= all;
}

// Calls body(piece) for pieces of at most `largest` rows: those of a group in order by one thread,
// large groups first.
template <typename Body>
void ForEachPieceOfGroups(const std::vector<int64_t>& rows_per_group, int64_t largest,
                          const Body& body) {
  std::vector<Piece> groups = PiecesOf(rows_per_group, std::numeric_limits<int64_t>::max());
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Piece& a, const Piece& b) { return a.rows > b.rows; });
  ForEachPiece(groups, [&](const Piece& group) {
    for (Piece piece = group; piece.begin < group.begin + group.rows; piece.begin += piece.rows) {
      piece.rows = std::min(largest, group.begin + group.rows - piece.begin);
      body(piece);
    }
  });
}

at::Tensor RowsOf(const at::Tensor& all, const Piece& piece) {
  return all.narrow(0, piece.begin, piece.rows);
}

at::Tensor OfGroup(const at::Tensor& all, const Piece& piece) { return all.select(0, piece.group); }

// c = a b (+ bias), by this thread.
void Multiply(at::Tensor c, const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
              Ahead ahead) {
  if (bias.defined()) c.copy_(bias.expand_as(c));
  if (TrySmallGemm(c, a, b, /*add=*/bias.defined(), ahead)) return;
  if (bias.defined()) {
    at::addmm_out(c, bias, a, b);
  } else {
    at::mm_out(c, a, b);
  }
}

// out = in matrix (+ bias); `out` may have another dtype.
void Product(at::Tensor out, const at::Tensor& in, const at::Tensor& matrix, const at::Tensor& bias,
             Ahead ahead = {}) {
  if (out.scalar_type() == in.scalar_type()) return Multiply(out, in, matrix, bias, ahead);
  const at::Tensor exact = at::empty(out.sizes(), in.options());
  Multiply(exact, in, matrix, bias, ahead);
  out.copy_(exact);
}

// sum += in^T grad; `sum` may have a wider dtype.
void AddProduct(at::Tensor sum, const at::Tensor& in, const at::Tensor& grad, Ahead ahead = {}) {
  if (TrySmallGemm(sum, in.t(), grad, /*add=*/true, ahead)) return;
  if (sum.scalar_type() != in.scalar_type()) {
    sum.add_(at::mm(in.t(), grad));
  } else {
    at::addmm_out(sum, sum, in.t(), grad);
  }
}

// What products are made in.
at::ScalarType ProductType(at::ScalarType x, at::ScalarType weights) {
  return x == at::kBFloat16 && HasBf16Gemm() ? x : at::promote_types(x, weights);
}

// Zeros in the shape and dtype of the biases that go with `weight`.
at::Tensor BiasSumOf(const at::Tensor& weight, bool needed) {
  return needed ? at::zeros({weight.size(0), weight.size(2)}, weight.scalar_type()) : at::Tensor();
}

class SmallFfnFunction : public torch::autograd::Function<SmallFfnFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& up,
                            const std::optional<at::Tensor>& up_bias, const at::Tensor& down,
                            const std::optional<at::Tensor>& down_bias,
                            const std::vector<int64_t>& rows_per_group, int64_t activation,
                            const InnerDropout& dropout) {
    const at::ScalarType dtype = ProductType(x.scalar_type(), up.scalar_type());
    const at::Tensor up_cast = up.to(dtype), down_cast = down.to(dtype);
    const at::Tensor up_bias_cast = Cast(up_bias, dtype), down_bias_cast = Cast(down_bias, dtype);
    const auto bias_of = [](const at::Tensor& biases, const Piece& piece) {
      return biases.defined() ? OfGroup(biases, piece) : at::Tensor();
    };
    const at::Tensor pre = at::empty({x.size(0), up.size(2)}, x.options().dtype(dtype)),
                     hidden = at::empty_like(pre), y = at::empty_like(x);
    const at::Tensor mask =
        DropoutMask({x.size(0), up.size(2)}, dropout.probability, dropout.key, dropout.token_ids_R);
    ForEachPiece(PiecesOf(rows_per_group, kRowsPerPiece), [&](const Piece& piece) {
      Product(RowsOf(pre, piece), RowsOf(x, piece).to(dtype), OfGroup(up_cast, piece),
              bias_of(up_bias_cast, piece), Ahead::Of(OfGroup(down_cast, piece)));
      const at::Tensor activated = RowsOf(hidden, piece);
      ActivateInto(activated, RowsOf(pre, piece), static_cast<Activation>(activation));
      if (mask.defined()) {
        DropInto(activated, activated, RowsOf(mask, piece), dropout.probability);
      }
      Product(RowsOf(y, piece), activated, OfGroup(down_cast, piece),
              bias_of(down_bias_cast, piece));
    });
    ctx->save_for_backward({x, up, down, up_cast, down_cast, pre, hidden, mask});
    ctx->saved_data["rows_per_group"] = rows_per_group;
    ctx->saved_data["activation"] = activation;
    ctx->saved_data["dropout"] = dropout.probability;
    ctx->saved_data["up_bias"] = up_bias.has_value() && up_bias->requires_grad();
    ctx->saved_data["down_bias"] = down_bias.has_value() && down_bias->requires_grad();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[1], &down = saved[2], &up_cast = saved[3],
                     &down_cast = saved[4], &pre = saved[5], &hidden = saved[6], &mask = saved[7];
    const std::vector<int64_t> rows_per_group = ctx->saved_data["rows_per_group"].toIntVector();
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    const double probability = ctx->saved_data["dropout"].toDouble();
    const at::ScalarType dtype = pre.scalar_type();
    const at::Tensor grad = grads[0].contiguous(), grad_pre = at::empty_like(pre);
    const at::Tensor grad_x = x.requires_grad() ? at::empty_like(x) : at::Tensor();
    const WeightGradient grad_up(up), grad_down(down);
    const at::Tensor grad_up_bias = BiasSumOf(up, ctx->saved_data["up_bias"].toBool()),
                     grad_down_bias = BiasSumOf(down, ctx->saved_data["down_bias"].toBool());
    const auto add_bias = [](const at::Tensor& sums, const at::Tensor& rows, const Piece& piece) {
      if (!sums.defined()) return;
      OfGroup(sums, piece)
          .add_(at::sum(RowsOf(rows, piece), 0, /*keepdim=*/false, sums.scalar_type()));
    };
    const auto make_rows = [&](const Piece& piece) {
      at::Tensor rows = RowsOf(grad_pre, piece);
      Product(rows, RowsOf(grad, piece).to(dtype), OfGroup(down_cast, piece).t(), {},
              Ahead::Of(RowsOf(x, piece)));
      if (mask.defined()) DropInto(rows, rows, RowsOf(mask, piece), probability);
      ActivateBackwardInto(rows, rows, RowsOf(pre, piece), activation);
      if (grad_x.defined()) Product(RowsOf(grad_x, piece), rows, OfGroup(up_cast, piece).t(), {});
    };
    const auto add_to_sums = [&](const Piece& piece) {
      if (grad_down.IsNeeded()) {
        AddProduct(OfGroup(grad_down.sum(), piece), RowsOf(hidden, piece),
                   RowsOf(grad, piece).to(dtype));
      }
      if (grad_up.IsNeeded()) {
        AddProduct(OfGroup(grad_up.sum(), piece), RowsOf(x, piece).to(dtype),
                   RowsOf(grad_pre, piece));
      }
      add_bias(grad_up_bias, grad_pre, piece);
      add_bias(grad_down_bias, grad, piece);
    };
    // A group's sums over its rows are made in row order, by one thread; best while the rows are in
    // its cache.
    if (GroupsFinishTogether(rows_per_group)) {
      ForEachPieceOfGroups(rows_per_group, kRowsPerPass, [&](const Piece& piece) {
        make_rows(piece);
        add_to_sums(piece);
      });
    } else {
      ForEachPiece(PiecesOf(rows_per_group, kRowsPerPiece), make_rows);
      ForEachPiece(PiecesOf(rows_per_group, x.size(0)), add_to_sums);
    }
    return {grad_x, grad_up.ToReturn(), grad_up_bias, grad_down.ToReturn(), grad_down_bias, {}, {},
            {}};
  }
};

}  // namespace

bool IsSmallFfn(const std::vector<int64_t>& rows_per_group, const GroupedFfnWeights& weights) {
  if (!weights.up_GDF.is_cpu()) return false;
  const int64_t busy = std::count_if(rows_per_group.begin(), rows_per_group.end(),
                                     [](int64_t rows) { return rows > 0; });
  return weights.up_GDF.dim() == 3 && busy >= at::get_num_threads() &&
         weights.up_GDF.size(1) * weights.up_GDF.size(2) <= kSmallMatrix;
}

at::Tensor SmallFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                    const GroupedFfnWeights& weights, Activation activation,
                    const InnerDropout& dropout) {
  return SmallFfnFunction::apply(x_RD.contiguous(), weights.up_GDF, OptionalTensor(weights.up_GF),
                                 weights.down_GFD, OptionalTensor(weights.down_GD), rows_per_group,
                                 static_cast<int64_t>(activation), dropout);
}

}  // namespace hypermoe
