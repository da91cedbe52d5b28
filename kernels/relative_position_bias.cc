#include "kernels/relative_position_bias.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/linear.h"
#include "kernels/relative_attention.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Legend: R distances of query and key, from the last query's to the first key up.

// Element l of row s of a head: its distance's number is queries - 1 - s + l.
template <typename Element>
void Spread(const at::Tensor& by_distance_HR, const at::Tensor& bias_HSL) {
  const int64_t heads = bias_HSL.size(0), queries = bias_HSL.size(1), keys = bias_HSL.size(2);
  const auto* from = by_distance_HR.const_data_ptr<Element>();
  auto* to = bias_HSL.mutable_data_ptr<Element>();
  at::parallel_for(0, heads * queries, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Element* distances = from + i / queries * by_distance_HR.size(1);
      std::copy_n(distances + queries - 1 - i % queries, keys, to + i * keys);
    }
  });
}

template <typename Element>
void AddUp(const at::Tensor& grad_HSL, const at::Tensor& sums_HR) {
  const int64_t heads = grad_HSL.size(0), queries = grad_HSL.size(1), keys = grad_HSL.size(2);
  const auto* from = grad_HSL.const_data_ptr<Element>();
  auto* to = sums_HR.mutable_data_ptr<Element>();
  at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * queries; i < end * queries; ++i) {
      Element* __restrict sums = to + i / queries * sums_HR.size(1) + queries - 1 - i % queries;
      const Element* __restrict row = from + i * keys;
      for (int64_t l = 0; l < keys; ++l) sums[l] += row[l];
    }
  });
}

class SpreadFunction : public torch::autograd::Function<SpreadFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& by_distance_RH,
                            int64_t queries) {
    ctx->saved_data["queries"] = queries;
    const int64_t distances = by_distance_RH.size(0), heads = by_distance_RH.size(1);
    const at::Tensor bias_HSL =
        at::empty({heads, queries, distances - queries + 1}, by_distance_RH.options());
    const bool wide = bias_HSL.scalar_type() == at::kDouble;
    (wide ? Spread<double> : Spread<float>)(by_distance_RH.t().contiguous(), bias_HSL);
    return bias_HSL;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor grad_HSL = grads[0].contiguous();
    const int64_t queries = ctx->saved_data["queries"].toInt();
    const at::Tensor sums_HR =
        at::zeros({grad_HSL.size(0), queries + grad_HSL.size(2) - 1}, grad_HSL.options());
    const bool wide = sums_HR.scalar_type() == at::kDouble;
    (wide ? AddUp<double> : AddUp<float>)(grad_HSL, sums_HR);
    return {sums_HR.t(), {}};
  }
};

}  // namespace

at::Tensor RelativePositionBias(const at::Tensor& table_KH, int64_t queries, int64_t keys,
                                int64_t first_query, bool bidirectional, int64_t max_distance) {
  TORCH_CHECK(table_KH.dim() == 2 &&
                  (table_KH.scalar_type() == at::kFloat || table_KH.scalar_type() == at::kDouble),
              "RelativePositionBias: a table of ", table_KH.scalar_type(), " and shape ",
              table_KH.sizes(), ", expected float32 or float64 of buckets and heads");
  const auto rows_of = [&](int64_t from_queries, int64_t to_keys, int64_t first) {
    const at::Tensor buckets = RelativePositionBuckets(from_queries, to_keys, first, bidirectional,
                                                       table_KH.size(0), max_distance);
    return EmbeddingRows(table_KH, buckets.to(table_KH.device()));
  };
  if (!table_KH.is_cpu() || queries == 0 || keys == 0) {
    return rows_of(queries, keys, first_query).permute({2, 0, 1}).contiguous();
  }
  // What the last query would have, had it more keys.
  const at::Tensor by_distance_RH =
      rows_of(1, queries + keys - 1, first_query + queries - 1).squeeze(0);
  return SpreadFunction::apply(by_distance_RH, queries);
}

}  // namespace hypermoe
