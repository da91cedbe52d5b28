// Adafactor (parallel/adafactor.h) trains alike at every layout, and goes on alike from a
// checkpoint at any other.
#include "parallel/adafactor.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "parallel/replica_check.h"
#include "runtime/checkpoint.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_run.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

constexpr int64_t kSave = 3, kEnd = 6;  // steps

// Some matrices of the model are factored, others are not.
void UseAdafactor(OptimizerConfig* config) {
  config->set_kind(OptimizerConfig::adafactor);
  config->set_min_dim_size_to_factor(8);
  // Gradients that are zero but for rounding, as that of a key's bias, stay without effect.
  config->set_epsilon1(1e-10);
  config->set_learning_rate(0.1);
  config->set_warmup_steps(0);
}

RunConfig Config(ModelConfig::Kind kind = ModelConfig::hyper) {
  RunConfig config = TinyConfig(kind, 6, RuntimeConfig::float64);
  config.mutable_train()->set_micro_batches(2);
  config.mutable_train()->set_steps(kEnd);
  UseAdafactor(config.mutable_optimizer());
  return config;
}

// What this rank has after steps `from` to `to`: values and the optimizer's state.
NamedTensors Train(Trainer& trainer, int64_t from, int64_t to) {
  for (int64_t step = from; step < to; ++step) EXPECT_FALSE(trainer.TrainStep(step).skipped);
  NamedTensors all = Values(trainer);
  all.merge(OptimizerState(trainer));
  return all;
}

// Each tensor against its own largest element.
double LargestOfEach(const NamedTensors& actual, const NamedTensors& reference) {
  double error = 0;
  for (const auto& [name, tensor] : actual)
    error = std::max(error, LargestError({{name, tensor}}, {{name, reference.at(name)}}));
  return error;
}

TEST(AdafactorLayoutTest, TrainsAlikeAtEveryLayout) {
  for (const auto kind : {ModelConfig::dense, ModelConfig::hyper}) {
    Trainer alone(Config(kind), OneRankMesh(), TinyRows(Config(kind)));
    const NamedTensors before = Values(alone), expected = Train(alone, 0, kEnd);
    EXPECT_GT(LargestOfEach(before, expected), 0.01) << "nothing was learned";
    for (const int degree : Degrees()) {
      Trainer together(Config(kind), ProcessMesh::Create(World(), degree), TinyRows(Config(kind)));
      EXPECT_LE(LargestOfEach(Train(together, 0, kEnd), expected), 1e-9) << "degree " << degree;
      EXPECT_EQ(
          FindDrift(together.buffers(), together.optimizer(), ProcessMesh::Create(World(), degree)),
          "");
    }
  }
}

// Experts are not looked at together: what one of two on a rank has does not change the other.
TEST(AdafactorLayoutTest, StateIsSmallAndEachExpertsOwn) {
  Trainer trainer(Config(), OneRankMesh(), TinyRows(Config()));
  const NamedTensors state = OptimizerState(trainer);
  int64_t elements = 0, values = 0;
  for (const auto& [name, tensor] : state) elements += tensor.numel();
  for (const FlatBuffer& buffer : trainer.buffers()) values += buffer.trained_elements();
  EXPECT_EQ(trainer.optimizer().kept_elements(), elements);
  EXPECT_LT(elements, values / 2);
  for (const char* expert : {"0", "5"}) {
    const std::string name = std::string("h.2.mlp.experts.expert_") + expert + ".c_fc.weight";
    EXPECT_EQ(state.at("row_moment." + name).numel(), 16);
    EXPECT_EQ(state.at("column_moment." + name).numel(), 24);
  }
}

CheckpointInfo InfoOf(const ProcessMesh& mesh) {
  CheckpointInfo info;
  info.step = kSave;
  info.config = Config();
  info.data_fingerprint = "tiny";
  info.world_size = mesh.world->size();
  info.expert_parallel = mesh.expert->size();
  return info;
}

TEST(AdafactorCheckpointTest, GoesOnAtEveryLayoutAsIfUninterrupted) {
  Trainer alone(Config(), OneRankMesh(), TinyRows(Config()));
  const NamedTensors saved = Train(alone, 0, kSave), expected = Train(alone, kSave, kEnd);
  for (const Layout& from : {Layout{1, 1}, Layouts().back()}) {
    const SharedFolder folder;
    NamedTensors at_save, uninterrupted;
    if (const std::optional<ProcessMesh> mesh = MeshOf(from)) {
      Trainer trainer(Config(), *mesh, TinyRows(Config()));
      at_save = Train(trainer, 0, kSave);
      const absl::Status status = SaveCheckpoint(folder.path(), InfoOf(*mesh), trainer.buffers(),
                                                 trainer.optimizer(), *mesh);
      EXPECT_TRUE(status.ok()) << status;
      uninterrupted = Train(trainer, kSave, kEnd);
    }
    World()->Barrier();
    for (const Layout& to : Layouts()) {
      const std::optional<ProcessMesh> mesh = MeshOf(to);
      if (!mesh) continue;
      const std::string what = "from " + LayoutName(from) + " to " + LayoutName(to);
      Trainer trainer(Config(), *mesh, TinyRows(Config()));
      const absl::Status status =
          LoadCheckpoint(ResolveCheckpoint(folder.path()).value(), 6, trainer.buffers(),
                         trainer.optimizer(), *mesh->world);
      ASSERT_TRUE(status.ok()) << status << what;
      trainer.model().ParametersChanged();
      EXPECT_EQ(trainer.optimizer().steps(), kSave);
      const NamedTensors loaded = Train(trainer, kSave, kSave);
      EXPECT_LE(LargestOfEach(loaded, saved), 1e-9) << what;
      for (const auto& [name, tensor] : loaded) {
        const auto here = at_save.find(name);
        EXPECT_TRUE(here == at_save.end() || tensor.equal(here->second)) << name << ", " << what;
      }
      const NamedTensors end = Train(trainer, kSave, kEnd);
      EXPECT_LE(LargestOfEach(end, expected), 1e-9) << what;
      if (to.world != from.world || to.expert != from.expert) continue;
      for (const auto& [name, tensor] : end)
        EXPECT_TRUE(tensor.equal(uninterrupted.at(name))) << name << ", " << what;
    }
    World()->Barrier();
  }
}

// That comparing proves something: each kind of state makes a difference.
TEST(AdafactorCheckpointTest, LostStateIsSeen) {
  Trainer whole(Config(), OneRankMesh(), TinyRows(Config()));
  const NamedTensors expected = Train(whole, 0, kSave + 1);
  for (size_t lost = 0; lost < whole.optimizer().kinds().size() + 1; ++lost) {
    Trainer trainer(Config(), OneRankMesh(), TinyRows(Config()));
    Train(trainer, 0, kSave);
    Optimizer& optimizer = trainer.optimizer();
    for (size_t b = 0; b < trainer.buffers().size(); ++b) {
      if (lost < optimizer.kinds().size())
        optimizer.SetState(b, lost, 0, at::zeros_like(optimizer.State(b, lost)));
    }
    if (lost == optimizer.kinds().size()) optimizer.set_steps(kSave - 1);
    EXPECT_GT(LargestOfEach(Train(trainer, kSave, kSave + 1), expected), 1e-3) << lost;
  }
}

TEST(AdafactorCheckpointTest, ABitThatDiffersBetweenCopiesIsFound) {
  if (World()->size() == 1) return;
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size() == 4 ? 2 : 1);
  Trainer trainer(Config(), mesh, TinyRows(Config()));
  Train(trainer, 0, 1);
  if (World()->rank() == 0) {
    const auto experts = static_cast<size_t>(ParameterGroup::kExpert);
    trainer.optimizer().State(experts, Adafactor::kColumns).select(0, 0).mul_(1.5);
  }
  EXPECT_THAT(FindDrift(trainer.buffers(), trainer.optimizer(), mesh),
              HasSubstr("experts.expert_0.c_fc.weight (column moment) differs between ranks 0"));
}

// Whole runs, whose checkpoints are written from copies beside training.
class AdafactorRunTest : public TinyRunTest {};

TEST_F(AdafactorRunTest, StoppedRunEndsAsTheWholeOneBitForBit) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  const auto options = [&](const std::string& run) {
    PretrainOptions options = Options(run);
    UseAdafactor(options.config.mutable_optimizer());
    return options;
  };
  EXPECT_TRUE(Pretrain(options("whole"), mesh).ok());
  PretrainOptions stopped = options("stopped");
  stopped.stop_at_step = 7;
  EXPECT_EQ(ExitCodeOf(Pretrain(stopped, mesh)), ExitCode::kStopped);
  World()->Barrier();
  EXPECT_TRUE(Pretrain(options("stopped"), mesh).ok());
  World()->Barrier();
  if (World()->rank() != 0) return;
  ExpectSameTensors(folder_ + "/stopped", folder_ + "/whole");
  const NamedTensors stored = StoredTensors(folder_ + "/whole");
  EXPECT_EQ(stored.count("optimizer.row_moment.h.0.mlp.experts.expert_5.c_fc.weight"), 1u);
  EXPECT_EQ(stored.count("optimizer.second_moment.h.0.mlp.experts.expert_5.c_fc.weight"), 0u);
  EXPECT_EQ(stored.count("optimizer.second_moment.h.0.mlp.experts.expert_5.c_fc.bias"), 1u);
}

}  // namespace
}  // namespace hypermoe
