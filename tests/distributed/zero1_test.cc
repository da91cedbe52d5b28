// ZeRO-1: the optimizer's state cut over the ranks that hold the same parameters.
#include <gtest/gtest.h>

#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

RunConfig Config(RuntimeConfig::Dtype dtype, bool zero1) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, dtype);
  config.mutable_train()->set_micro_batches(2);
  config.mutable_optimizer()->set_zero1(zero1);
  // Below the norms that occur, so that the clip acts.
  config.mutable_optimizer()->set_clip_norm(0.05);
  return config;
}

void ExpectSameBits(Trainer& sharded, Trainer& whole, const std::string& what) {
  const NamedTensors expected = Values(whole);
  for (const auto& [name, value] : Values(sharded)) {
    EXPECT_TRUE(value.equal(expected.at(name))) << name << ", " << what;
  }
  const NamedTensors moments = OptimizerState(whole);
  for (const auto& [name, moment] : OptimizerState(sharded)) {
    EXPECT_TRUE(moment.equal(moments.at(name))) << name << ", " << what;
  }
}

TEST(Zero1Test, EqualsTheWholeOptimizerBitForBit) {
  for (const auto dtype : {RuntimeConfig::float32, RuntimeConfig::float64}) {
    for (const int degree : Degrees()) {
      const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
      Trainer whole(Config(dtype, false), mesh, TinyRows(Config(dtype, false)));
      Trainer sharded(Config(dtype, true), mesh, TinyRows(Config(dtype, true)));
      for (int64_t step = 0; step < 6; ++step) {
        const StepResult expected = whole.TrainStep(step), actual = sharded.TrainStep(step);
        EXPECT_EQ(actual.loss, expected.loss);
        EXPECT_EQ(actual.gradient_norm, expected.gradient_norm);
        EXPECT_GT(expected.gradient_norm, 0.05) << "nothing was clipped";
      }
      ExpectSameBits(sharded, whole, "degree " + std::to_string(degree));
    }
  }
}

// The parts of all ranks together are the state of one replica, and they are even.
TEST(Zero1Test, EachRankKeepsItsShareOfTheState) {
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer sharded(Config(RuntimeConfig::float32, true), mesh,
                    TinyRows(Config(RuntimeConfig::float32, true)));
    int64_t expected = 0;
    for (const FlatBuffer& buffer : sharded.buffers()) {
      const bool expert = buffer.group() == ParameterGroup::kExpert;
      const Communicator& group = expert ? *mesh.expert_data : *mesh.world;
      expected += 2 * RowsOfRank(buffer.values().numel(), group.size(), group.rank()).size();
    }
    EXPECT_EQ(sharded.optimizer().kept_elements(), expected) << "degree " << degree;
  }
}

// A shard that stays as it was before the step, as without the exchange, is seen.
TEST(Zero1Test, TheComparisonSeesAMissingExchange) {
  if (World()->size() == 1) return;  // there is nothing to exchange
  const ProcessMesh mesh = ProcessMesh::Create(World(), 1);
  Trainer whole(Config(RuntimeConfig::float32, false), mesh,
                TinyRows(Config(RuntimeConfig::float32, false)));
  Trainer sharded(Config(RuntimeConfig::float32, true), mesh,
                  TinyRows(Config(RuntimeConfig::float32, true)));
  const at::Tensor values = sharded.buffers()[0].values(), before = values.clone();
  whole.TrainStep(0);
  sharded.TrainStep(0);
  EXPECT_TRUE(values.equal(whole.buffers()[0].values()));
  const RowRange others =
      RowsOfRank(before.numel(), World()->size(), (World()->rank() + 1) % World()->size());
  values.narrow(0, others.begin, others.size())
      .copy_(before.narrow(0, others.begin, others.size()));
  EXPECT_FALSE(values.equal(whole.buffers()[0].values()));
}

// Models of several buckets, some of which backward starts between its exchanges of tokens: the
// same bits as with one bucket a group, whole and sharded, with experts spread unevenly.
TEST(BucketTest, ManyGiveTheBitsOfOne) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 7, RuntimeConfig::float32);
  config.mutable_model()->set_hidden_size(64);
  config.mutable_model()->set_ffn_size(1024);
  config.mutable_train()->set_micro_batches(2);
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer one(config, mesh, TinyRows(config));
    config.mutable_mesh()->set_bucket_mebibytes(1);
    Trainer many(config, mesh, TinyRows(config));
    config.mutable_optimizer()->set_zero1(true);
    config.mutable_train()->set_recompute(TrainConfig::blocks);
    Trainer sharded(config, mesh, TinyRows(config));
    config.mutable_optimizer()->set_zero1(false);
    config.mutable_train()->set_recompute(TrainConfig::nothing);
    config.mutable_mesh()->set_bucket_mebibytes(16);
    EXPECT_GT(many.buckets().size(), one.buckets().size());
    for (int64_t step = 0; step < 3; ++step) {
      const double loss = one.TrainStep(step).loss;
      EXPECT_EQ(many.TrainStep(step).loss, loss);
      EXPECT_EQ(sharded.TrainStep(step).loss, loss);
    }
    EXPECT_GT(many.reducer().started_early(), 0);
    for (Trainer* trainer : {&many, &sharded}) {
      for (size_t buffer = 0; buffer < one.buffers().size(); ++buffer) {
        EXPECT_TRUE(trainer->buffers()[buffer].values().equal(one.buffers()[buffer].values()))
            << "buffer " << buffer << ", degree " << degree;
      }
    }
  }
}

}  // namespace
}  // namespace hypermoe
