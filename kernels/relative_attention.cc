#include "kernels/relative_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "kernels/biased_attention.h"
#include "kernels/optional_tensor.h"

namespace hypermoe {
namespace {

// The bucket of a distance in one direction.
int64_t BucketOf(int64_t distance, int64_t buckets, int64_t max_distance) {
  const int64_t exact = buckets / 2;
  if (distance < exact) return distance;
  const auto log_range =
      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const float log_distance = std::log(static_cast<float>(distance) / static_cast<float>(exact));
  const auto beyond =
      static_cast<int64_t>(log_distance / log_range * static_cast<float>(buckets - exact));
  return std::min(exact + beyond, buckets - 1);
}

// What is added to a masked score: so low that the score is lost in its rounding, so that a row of
// masked keys alone is uniform, in value and gradient, as in T5, which adds all of lowest. Half of
// it, because kernels multiply scores by log2(e) before they subtract the highest.
double MaskedScore(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return std::numeric_limits<double>::lowest() / 2;
    case at::kFloat:
      return std::numeric_limits<float>::lowest() / 2;
    default:
      return std::numeric_limits<at::BFloat16>::lowest() / 2;
  }
}

// [B or 1,1,S or 1,L]: 0 or MaskedScore; undefined if nothing is masked.
at::Tensor MaskOf(const AttentionBias& bias, int64_t queries, int64_t keys,
                  const at::TensorOptions& options) {
  at::Tensor masked;
  if (bias.allowed_BL.defined()) masked = bias.allowed_BL.logical_not().unsqueeze(1).unsqueeze(1);
  if (bias.causal && queries > 1) {
    const at::Tensor future_SL = FutureKeys(queries, keys, options.device());
    masked = masked.defined() ? masked.logical_or(future_SL) : future_SL.unsqueeze(0).unsqueeze(0);
  }
  if (!masked.defined()) return {};
  return at::zeros(masked.sizes(), options)
      .masked_fill_(masked, MaskedScore(c10::typeMetaToScalarType(options.dtype())));
}

// The fused kernel's backward forgets how many keys a row of masked keys alone has: the logarithm
// of their number is lost in the sum that it keeps. Nor has the bias a gradient there.
bool NeedsGradient(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC, const at::Tensor& v_BHLC,
                   const at::Tensor& bias_HSL) {
  return at::GradMode::is_enabled() &&
         (q_BHSC.requires_grad() || k_BHLC.requires_grad() || v_BHLC.requires_grad() ||
          (bias_HSL.defined() && bias_HSL.requires_grad()));
}

at::Tensor WrittenOut(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC, const at::Tensor& v_BHLC,
                      const at::Tensor& bias_HSL, const at::Tensor& mask,
                      const AttentionDropout& dropout) {
  at::Tensor scores_BHSL = at::matmul(q_BHSC, k_BHLC.transpose(2, 3));
  if (bias_HSL.defined()) scores_BHSL.add_(bias_HSL);
  if (mask.defined()) scores_BHSL.add_(mask);
  return AttentionOfScores(scores_BHSL, v_BHLC, dropout);
}

// What gradients need. Of a batch without rows the written-out form costs nothing.
at::Tensor Differentiable(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                          const at::Tensor& v_BHLC, const AttentionBias& bias,
                          const AttentionDropout& dropout) {
  const int64_t queries = q_BHSC.size(2), keys = k_BHLC.size(2);
  const at::TensorOptions options = q_BHSC.options().requires_grad(false);
  if (q_BHSC.size(0) > 0 && !WritesOutProbabilities(queries, keys, q_BHSC.device().type())) {
    AttentionBias seen = bias;  // mostly rows are full
    if (bias.allowed_BL.defined() && bias.allowed_BL.all().item<bool>())
      seen.allowed_BL = at::Tensor();
    const at::ScalarType precise = q_BHSC.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return BiasedAttention(q_BHSC, k_BHLC, v_BHLC, bias.bias_HSL,
                           MaskOf(seen, queries, keys, options.dtype(precise)), dropout);
  }
  return WrittenOut(q_BHSC, k_BHLC, v_BHLC,
                    bias.bias_HSL.defined() ? bias.bias_HSL.to(q_BHSC.scalar_type()) : at::Tensor(),
                    MaskOf(bias, queries, keys, options), dropout);
}

void CheckShapes(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC, const AttentionBias& bias) {
  const int64_t rows = q_BHSC.size(0), heads = q_BHSC.size(1), queries = q_BHSC.size(2),
                keys = k_BHLC.size(2);
  TORCH_CHECK(!bias.causal || queries <= keys, "RelativeAttention: ", queries, " queries and ",
              keys, " keys; causal attention expects the queries to be the last of the keys");
  TORCH_CHECK(
      !bias.bias_HSL.defined() || bias.bias_HSL.sizes() == at::IntArrayRef({heads, queries, keys}),
      "RelativeAttention: a bias of shape ", bias.bias_HSL.sizes(),
      ", expected heads, queries and ", "keys: ", at::IntArrayRef({heads, queries, keys}));
  TORCH_CHECK(
      !bias.allowed_BL.defined() || (bias.allowed_BL.scalar_type() == at::kBool &&
                                     bias.allowed_BL.sizes() == at::IntArrayRef({rows, keys})),
      "RelativeAttention: allowed keys of ", bias.allowed_BL.scalar_type(), " and shape ",
      bias.allowed_BL.sizes(), ", expected bool of rows and keys: ", at::IntArrayRef({rows, keys}));
}

}  // namespace

bool WritesOutProbabilities(int64_t queries, int64_t keys, at::DeviceType device) {
  // A smaller matrix of scores costs less than the calls for its pieces do.
  constexpr int64_t kLargeScores = 1 << 12;
  return device != at::kCPU || queries * keys < kLargeScores;
}

at::Tensor RelativePositionBuckets(int64_t queries, int64_t keys, int64_t first_query,
                                   bool bidirectional, int64_t buckets, int64_t max_distance) {
  const int64_t per_direction = bidirectional ? buckets / 2 : buckets;
  TORCH_CHECK(per_direction >= 2 && max_distance > per_direction / 2,
              "RelativePositionBuckets: ", buckets, " buckets up to distance ", max_distance,
              "; expected at least 2 in each direction, and more distance than half of those");
  // Rows are windows of one sequence: the buckets of r = -last_query .. keys - 1 - first_query.
  const int64_t last_query = first_query + queries - 1;
  std::vector<int64_t> bucket_of;
  for (int64_t r = -last_query; r < keys - first_query; ++r) {
    const int64_t distance = bidirectional ? std::abs(r) : std::max<int64_t>(-r, 0);
    bucket_of.push_back(BucketOf(distance, per_direction, max_distance) +
                        (bidirectional && r > 0 ? per_direction : 0));
  }
  const at::Tensor buckets_SL = at::empty({queries, keys}, at::kLong);
  auto* out = buckets_SL.mutable_data_ptr<int64_t>();
  for (int64_t s = 0; s < queries; ++s, out += keys) {
    std::copy_n(bucket_of.begin() + (queries - 1 - s), keys, out);
  }
  return buckets_SL;
}

at::Tensor RelativeAttention(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                             const at::Tensor& v_BHLC, const AttentionBias& bias,
                             const AttentionDropout& dropout) {
  CheckShapes(q_BHSC, k_BHLC, bias);
  const at::TensorOptions options = q_BHSC.options().requires_grad(false);
  // The fused kernel does not take a batch of 0 rows.
  if (bias.for_gradients || dropout.probability > 0 || q_BHSC.size(0) == 0 ||
      NeedsGradient(q_BHSC, k_BHLC, v_BHLC, bias.bias_HSL))
    return Differentiable(q_BHSC, k_BHLC, v_BHLC, bias, dropout);
  const at::Tensor mask = MaskOf(bias, q_BHSC.size(2), k_BHLC.size(2), options);
  at::Tensor added = mask;
  if (bias.bias_HSL.defined()) {
    added = bias.bias_HSL.detach().to(q_BHSC.scalar_type()).unsqueeze(0);
    if (mask.defined()) added = added.add(mask);
  }
  // On the CPU the fused kernel of LibTorch 2.11 takes keys to lie one after the other, whatever
  // the strides say.
  if (added.defined()) added = added.contiguous();
  return at::scaled_dot_product_attention(q_BHSC, k_BHLC, v_BHLC, OptionalTensor(added), 0.0,
                                          /*is_causal=*/false, /*scale=*/1.0);
}

}  // namespace hypermoe
