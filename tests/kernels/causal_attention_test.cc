#include "kernels/causal_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/support/gradient_check.h"

namespace hypermoe {
namespace {

constexpr int64_t kRows = 2, kHeads = 2, kPositions = 7, kWidth = 4;

at::Tensor Random(const std::string& name) {
  at::Tensor tensor = at::empty({kRows, kHeads, kPositions, kWidth}, at::kDouble);
  FillNormal(tensor, RandomKey{2, 0}.Derive(name), 1.0);
  return tensor.set_requires_grad(true);
}

// One query position at a time, over the keys that it may see.
at::Tensor PlainAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  std::vector<at::Tensor> out;
  for (int64_t s = 0; s < q.size(2); ++s) {
    const at::Tensor seen_k = k.narrow(2, 0, s + 1), seen_v = v.narrow(2, 0, s + 1);
    const at::Tensor scores =
        at::matmul(q.narrow(2, s, 1), seen_k.transpose(2, 3)) / std::sqrt(double{kWidth});
    out.push_back(at::matmul(at::softmax(scores, -1), seen_v).squeeze(2));
  }
  return at::stack(out, 2);
}

AttentionDropout Dropout(double probability) {
  return {probability, RandomKey{9, 0}.Derive("attention"), at::arange(kRows, at::kLong)};
}

TEST(CausalAttentionTest, EqualsTheDefinition) {
  const at::Tensor q = Random("q"), k = Random("k"), v = Random("v");
  EXPECT_TRUE(CausalAttention(q, k, v, {}).allclose(PlainAttention(q, k, v), 1e-12, 1e-12));
}

TEST(CausalAttentionTest, WrittenOutFormEqualsTheFusedOne) {
  const at::Tensor q = Random("q"), k = Random("k"), v = Random("v");
  // So improbable that nothing is dropped.
  EXPECT_TRUE(
      CausalAttention(q, k, v, Dropout(1e-12)).allclose(CausalAttention(q, k, v, {}), 1e-9, 1e-9));
}

TEST(CausalAttentionTest, OneQuerySeesAllKeys) {
  const at::Tensor q = Random("q"), k = Random("k"), v = Random("v");
  const at::Tensor last = CausalAttention(q.narrow(2, kPositions - 1, 1), k, v, {});
  EXPECT_TRUE(
      last.allclose(CausalAttention(q, k, v, {}).narrow(2, kPositions - 1, 1), 1e-12, 1e-12));
  EXPECT_THROW(CausalAttention(q.narrow(2, 0, 2), k, v, {}), c10::Error);
}

TEST(CausalAttentionTest, GradientsMatchDifferences) {
  for (const double probability : {0.0, 0.3}) {
    EXPECT_TRUE(GradientsMatchDifferences(
        [&](const std::vector<at::Tensor>& in) {
          return CausalAttention(in[0], in[1], in[2], Dropout(probability));
        },
        {Random("q"), Random("k"), Random("v")}))
        << "dropout " << probability;
  }
}

TEST(CausalAttentionTest, NoRowsKeepTheGraph) {
  const at::Tensor empty =
      at::empty({0, kHeads, kPositions, kWidth}, at::kDouble).set_requires_grad(true);
  const at::Tensor y = CausalAttention(empty, empty, empty, {});
  EXPECT_EQ(y.sizes(), empty.sizes());
  EXPECT_TRUE(y.requires_grad());
}

}  // namespace
}  // namespace hypermoe
