#include "kernels/relative_position_bias.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/relative_attention.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

constexpr int64_t kBuckets = 8, kHeads = 3, kMaxDistance = 20;

struct Shape {
  int64_t queries, keys, first_query;
  bool bidirectional;
};

TEST(RelativePositionBiasTest, IsTheTablesRowsByBucketWithItsGradient) {
  for (const at::Device device : DevicesHere()) {
    for (const Shape& shape : std::vector<Shape>{{40, 40, 0, true},
                                                 {40, 40, 0, false},
                                                 {1, 30, 29, false},
                                                 {5, 30, 25, false},
                                                 {7, 50, 0, true},
                                                 {50, 7, 3, true},
                                                 {1, 1, 0, true},
                                                 {0, 4, 0, true}}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
        const at::Tensor table =
            Random({kBuckets, kHeads}, "table").to(device, dtype).set_requires_grad(true);
        const at::Tensor exact =
            table.detach().to(at::kCPU, at::kDouble, false, /*copy=*/true).set_requires_grad(true);
        const at::Tensor bias = RelativePositionBias(
            table, shape.queries, shape.keys, shape.first_query, shape.bidirectional, kMaxDistance);
        const at::Tensor expected =
            at::embedding(exact,
                          RelativePositionBuckets(shape.queries, shape.keys, shape.first_query,
                                                  shape.bidirectional, kBuckets, kMaxDistance))
                .permute({2, 0, 1});
        ASSERT_EQ(bias.sizes(), expected.sizes());
        EXPECT_TRUE(bias.is_contiguous());
        EXPECT_TRUE(bias.detach().cpu().to(at::kDouble).equal(expected.to(dtype).to(at::kDouble)));
        if (shape.queries == 0) continue;
        const at::Tensor grad = Random(expected.sizes(), "grad").to(dtype);
        bias.backward(grad.to(device));
        expected.backward(grad.to(at::kDouble));
        EXPECT_LE(RelativeError(table.grad(), exact.grad()), dtype == at::kDouble ? 1e-13 : 1e-5);
      }
    }
  }
}

TEST(RelativePositionBiasTest, OtherTablesAreRefused) {
  EXPECT_THROW(RelativePositionBias(Random({8, 2}, "table", at::kBFloat16), 4, 4, 0, true, 20),
               c10::Error);
  EXPECT_THROW(RelativePositionBias(Random({8}, "table"), 4, 4, 0, true, 20), c10::Error);
}

}  // namespace
}  // namespace hypermoe
