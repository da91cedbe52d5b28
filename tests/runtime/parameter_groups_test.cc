#include "runtime/parameter_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/model_cost.h"
#include "runtime/model_folder_layout.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::Field;

std::map<std::string, TensorEntry> EntriesOf(const RunConfig& config) {
  std::map<std::string, TensorEntry> entries;
  ForEachFolderTensor(config, [&](const std::string& name, at::IntArrayRef shape) {
    entries[name] = {at::kFloat, shape.vec()};
  });
  return entries;
}

TEST(ParameterGroupsTest, EveryParameterCountsOnce) {
  for (const auto family : {ModelConfig::gpt2, ModelConfig::switch_transformers}) {
    for (const auto kind : {ModelConfig::dense, ModelConfig::moe, ModelConfig::moe_share,
                            ModelConfig::adapter, ModelConfig::hyper}) {
      RunConfig config = TinyConfigOf(family, kind, 4, RuntimeConfig::float32);
      config.mutable_hyper()->set_scale(HyperConfig::learned);
      const ParameterCounts counts = CountParameters(config);
      int64_t total = 0, experts = 0, hyper = 0;
      for (const ParameterGroupSize& group : GroupTensors(EntriesOf(config))) {
        total += group.parameters;
        if (group.name == "experts") experts += group.parameters;
        const bool of_hyper = group.name == "generator" || group.name == "selection MLP" ||
                              group.name == "expert embeddings" ||
                              group.name == "layer embeddings" ||
                              group.name == "HyperExpert scales";
        if (of_hyper) hyper += group.parameters;
      }
      const std::string what =
          ModelConfig::Family_Name(family) + " " + ModelConfig::Kind_Name(kind);
      EXPECT_EQ(total, counts.total()) << what;
      EXPECT_EQ(experts, counts.experts) << what;
      EXPECT_EQ(hyper, counts.hyper) << what;
    }
  }
}

TEST(ParameterGroupsTest, GroupsHaveTheirTensors) {
  const RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float32);
  const auto groups = GroupTensors(EntriesOf(config));
  const auto named = [](const char* name, int64_t tensors) {
    return testing::AllOf(Field(&ParameterGroupSize::name, name),
                          Field(&ParameterGroupSize::tensors, tensors));
  };
  // Three blocks, two of them sparse.
  EXPECT_THAT(groups,
              ElementsAre(named("embeddings and head", 2), named("dense feed-forward", 4),
                          named("attention", 12), named("norms", 14), named("routers", 2),
                          named("experts", 32), named("generator", 6), named("layer embeddings", 1),
                          named("selection MLP", 8), named("expert embeddings", 2)));
  EXPECT_EQ(groups[9].parameters, 2 * 4 * 6);
}

}  // namespace
}  // namespace hypermoe
