#include "kernels/select_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

TEST(SelectRowsTest, EqualsIndexSelectWithItsGradient) {
  for (const std::vector<int64_t>& index : {std::vector<int64_t>{4, 0, 2}, {1}, {}}) {
    const at::Tensor index_K = at::tensor(index, at::kLong);
    const at::Tensor rows = Leaf({5, 3}, "rows");
    EXPECT_TRUE(SelectRows(rows, index_K).equal(at::index_select(rows, 0, index_K)));
    if (index.empty()) {
      SelectRows(rows, index_K).sum().backward();
      EXPECT_EQ(rows.grad().abs().max().item<double>(), 0);
      continue;
    }
    EXPECT_TRUE(GradientsMatchDifferences(
        [&](const std::vector<at::Tensor>& in) { return SelectRows(in[0], index_K); }, {rows}));
  }
}

class SelectRowsBitsTest : public testing::TestWithParam<at::DeviceType> {
 protected:
  void SetUp() override { SkipWithoutDevice(GetParam()); }
};

// All bits of bfloat16 come through both ways, -0 and every NaN too.
TEST_P(SelectRowsBitsTest, MovesBitsAsTheyAre) {
  std::vector<int16_t> bits;
  for (int value = -32768; value < 32768; ++value) bits.push_back(static_cast<int16_t>(value));
  const at::Tensor bits_RD = at::tensor(bits, at::kShort).view({256, 256}).to(GetParam());
  const at::Tensor backwards_R =
      at::tensor(std::vector<int64_t>{255, 3, 0, 17, 100}, at::kLong).to(GetParam());
  const at::Tensor rows = bits_RD.view(at::kBFloat16).clone().set_requires_grad(true);
  const at::Tensor chosen = SelectRows(rows, backwards_R);
  EXPECT_TRUE(chosen.detach().view(at::kShort).equal(at::index_select(bits_RD, 0, backwards_R)));
  chosen.backward(bits_RD.narrow(0, 0, 5).view(at::kBFloat16));
  EXPECT_TRUE(at::index_select(rows.grad().view(at::kShort), 0, backwards_R)
                  .equal(bits_RD.narrow(0, 0, 5)));
}

INSTANTIATE_TEST_SUITE_P(Devices, SelectRowsBitsTest, testing::Values(at::kCPU, at::kCUDA),
                         [](const auto& info) { return info.param == at::kCPU ? "cpu" : "cuda"; });

}  // namespace
}  // namespace hypermoe
