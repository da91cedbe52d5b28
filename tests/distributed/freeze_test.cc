// Freezing takes parameters out of training and changes nothing else, at every layout.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/parameter_patterns.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

using Patterns = std::vector<std::string>;

void Freeze(const Patterns& patterns, RunConfig* config) {
  for (const std::string& pattern : patterns) config->mutable_train()->add_freeze(pattern);
}

// What can go wrong in another way each: inputs of blocks that need no gradient, a sparse block
// without one; parts of the hypernetwork and the whole; experts, which other ranks hold; and only
// the experts or the hypernetwork left.
const Patterns kFrozen[] = {
    {"wte.*", "wpe.*"},
    {"wte.*", "wpe.*", "h.0.*", "h.1.*"},
    {"*.experts.*", "*.c_fc.bias"},
    {"hypermoe.*"},
    {"hypermoe.generator.model.up.*"},
    {"hypermoe.[el]*", "hypermoe.selection_mlp.*", "hypermoe.generator.model.project.*",
     "hypermoe.generator.model.down.*"},
    {"w*", "h.?.[al]*", "*.router.*", "h.1.mlp.*", "ln_f.*", "hypermoe.*"},
    {"w*", "h.*", "ln_f.*"},
};

TEST(FreezeTest, GradientsOfTheRestAreThoseOfAllAtEveryLayout) {
  for (const HyperConfig::Execution execution : {HyperConfig::source, HyperConfig::owner}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float64);
    config.mutable_hyper()->set_execution(execution);
    config.mutable_train()->set_micro_batches(2);
    const Outcome all = Compute(config, OneRankMesh());
    int number = 0;
    for (const Patterns& patterns : kFrozen) {
      RunConfig frozen = config;
      Freeze(patterns, &frozen);
      // Also where a block is computed again, and where the optimizer is cut over the ranks.
      frozen.mutable_train()->set_recompute(number % 2 == 0 ? TrainConfig::blocks
                                                            : TrainConfig::nothing);
      frozen.mutable_optimizer()->set_zero1(number % 3 == 0);
      ++number;
      for (const int degree : Degrees()) {
        const Outcome rest = Compute(frozen, ProcessMesh::Create(World(), degree));
        EXPECT_LE(LargestError(rest.gradients, all.gradients), 1e-12)
            << patterns[0] << ", degree " << degree;
        EXPECT_LE(RelativeError(rest.loss, all.loss), 1e-12);
        EXPECT_LT(rest.gradient_norm, all.gradient_norm);
        EXPECT_LT(rest.gradients.size(), all.gradients.size());
      }
    }
  }
}

TEST(FreezeTest, OnlyTheRestMoves) {
  for (const bool zero1 : {false, true}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32);
    config.mutable_optimizer()->set_zero1(zero1);
    Freeze({"wte.*", "h.0.*", "hypermoe.selection_mlp.*"}, &config);
    Trainer trainer(config, ProcessMesh::Create(World(), World()->size()), TinyRows(config));
    const NamedTensors before = Values(trainer);
    const int64_t elements = trainer.optimizer().kept_elements();
    for (int64_t step = 0; step < 3; ++step) trainer.TrainStep(step);
    const NamedTensors after = Values(trainer);
    int64_t moved = 0, kept = 0;
    for (const FlatBuffer& buffer : trainer.buffers()) {
      for (const Parameter* parameter : buffer.parameters()) {
        for (const NamedTensor& view : GlobalViews(*parameter, parameter->value)) {
          const bool same = before.at(view.name).equal(after.at(view.name));
          // (An expert that no token has chosen may stay where it is too.)
          if (parameter->frozen || parameter->group != ParameterGroup::kExpert) {
            EXPECT_EQ(same, parameter->frozen) << view.name;
          }
          ++(same ? kept : moved);
        }
      }
    }
    EXPECT_GT(moved, 0);
    EXPECT_GT(kept, 0);
    int64_t trained = 0;
    for (const FlatBuffer& buffer : trainer.buffers()) trained += buffer.trained_elements();
    EXPECT_LE(elements, 2 * trained);  // two moments
  }
}

}  // namespace
}  // namespace hypermoe
