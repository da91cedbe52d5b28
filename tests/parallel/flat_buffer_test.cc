#include "parallel/flat_buffer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

Parameter MakeParameter(const std::string& name, std::vector<int64_t> shape, ParameterGroup group,
                        bool weight_decay, double value) {
  Parameter parameter;
  parameter.name = name;
  parameter.value = at::full(shape, value, at::kDouble).set_requires_grad(true);
  parameter.group = group;
  parameter.weight_decay = weight_decay;
  return parameter;
}

std::vector<Parameter> SomeParameters() {
  return {MakeParameter("bias", {3}, ParameterGroup::kDense, false, 1),
          MakeParameter("hyper", {2}, ParameterGroup::kHyper, true, 2),
          MakeParameter("weight", {2, 4}, ParameterGroup::kDense, true, 3),
          MakeParameter("expert_{e}.w", {2, 1, 2}, ParameterGroup::kExpert, true, 4)};
}

TEST(FlatBufferTest, OneBufferAGroupInOrderWithDecayedParametersFirst) {
  std::vector<Parameter> parameters = SomeParameters();
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  ASSERT_EQ(buffers.size(), 3u);
  EXPECT_EQ(buffers[0].group(), ParameterGroup::kDense);
  EXPECT_EQ(buffers[1].group(), ParameterGroup::kHyper);
  EXPECT_EQ(buffers[2].group(), ParameterGroup::kExpert);
  EXPECT_EQ(buffers[0].parameters()[0]->name, "weight");
  EXPECT_EQ(buffers[0].parameters()[1]->name, "bias");
  EXPECT_EQ(buffers[0].offset(1), 8);
  EXPECT_EQ(buffers[0].decayed_elements(), 8);
  EXPECT_EQ(buffers[0].values().numel(), 11);
}

TEST(FlatBufferTest, ValuesAreKeptAndTheLeafIsAViewOfTheBuffer) {
  std::vector<Parameter> parameters = SomeParameters();
  const at::Tensor held_by_a_module = parameters[2].value;
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  EXPECT_TRUE(at::equal(held_by_a_module, at::full({2, 4}, 3.0, at::kDouble)));
  buffers[0].values().add_(1);
  EXPECT_TRUE(at::equal(held_by_a_module, at::full({2, 4}, 4.0, at::kDouble)));
  EXPECT_TRUE(held_by_a_module.is_leaf());
  EXPECT_TRUE(held_by_a_module.requires_grad());
}

TEST(FlatBufferTest, AutogradAccumulatesIntoTheBuffer) {
  std::vector<Parameter> parameters = SomeParameters();
  std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  const at::Tensor coefficients = at::arange(8, at::kDouble).view({2, 4});
  for (int backward = 1; backward <= 2; ++backward) {
    ((parameters[2].value * coefficients).sum() + parameters[0].value.sum()).backward();
    EXPECT_TRUE(at::equal(buffers[0].View(buffers[0].gradients(), 0), coefficients * backward));
    EXPECT_TRUE(at::equal(buffers[0].View(buffers[0].gradients(), 1),
                          at::full({3}, double(backward), at::kDouble)));
  }
  buffers[0].ZeroGradients();
  EXPECT_TRUE(at::equal(parameters[2].value.grad(), at::zeros({2, 4}, at::kDouble)));
}

TEST(FlatBufferTest, EmptyGroupsAndParametersWithoutRowsAreLegal) {
  std::vector<Parameter> parameters = {
      MakeParameter("expert_{e}.w", {0, 3, 2}, ParameterGroup::kExpert, true, 0)};
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  ASSERT_EQ(buffers.size(), 3u);
  EXPECT_EQ(buffers[0].values().numel(), 0);
  EXPECT_EQ(buffers[2].gradients().numel(), 0);
  EXPECT_EQ(buffers[2].gradients().scalar_type(), at::kDouble);
  EXPECT_EQ(parameters[0].value.sizes(), (std::vector<int64_t>{0, 3, 2}));
}

TEST(FlatBufferTest, MixedDtypesAreRefused) {
  std::vector<Parameter> parameters = SomeParameters();
  parameters[0].value = at::ones({3}, at::kFloat).set_requires_grad(true);
  EXPECT_THROW(MakeFlatBuffers(parameters), c10::Error);
}

TEST(GlobalViewsTest, ExpertRowsCarryGlobalIdsAndShareMemory) {
  std::vector<Parameter> parameters = SomeParameters();
  Parameter& expert = parameters[3];
  expert.first_expert = 5;
  const std::vector<NamedTensor> views = GlobalViews(expert, expert.value);
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].name, "expert_5.w");
  EXPECT_EQ(views[1].name, "expert_6.w");
  EXPECT_EQ(views[1].tensor.sizes(), (std::vector<int64_t>{1, 2}));
  views[1].tensor.fill_(9);  // a loaded checkpoint does this; no autograd in the way
  EXPECT_TRUE(at::equal(expert.value.detach().select(0, 1), at::full({1, 2}, 9.0, at::kDouble)));

  const std::vector<NamedTensor> dense = GlobalViews(parameters[0], parameters[0].value);
  ASSERT_EQ(dense.size(), 1u);
  EXPECT_EQ(dense[0].name, "bias");
}

TEST(GlobalViewsTest, WrongShapesAndNamesAreRefused) {
  std::vector<Parameter> parameters = SomeParameters();
  EXPECT_THROW(GlobalViews(parameters[0], at::ones({4})), c10::Error);
  parameters[3].name = "expert.w";
  EXPECT_THROW(GlobalViews(parameters[3], parameters[3].value), c10::Error);
}

}  // namespace
}  // namespace hypermoe
