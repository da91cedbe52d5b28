// A checkpoint means the same at every layout: saved at one and loaded at another, for all pairs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/config_loader.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tagged_model.h"

namespace hypermoe {
namespace {

using testing::IsEmpty;

CheckpointInfo InfoAt(int64_t step, int64_t num_experts, const ProcessMesh& mesh) {
  CheckpointInfo info;
  info.step = step;
  info.config = LoadConfig("", {"model.num_experts=" + std::to_string(num_experts)}).value();
  info.data_fingerprint = "12:0123";
  info.world_size = mesh.world->size();
  info.expert_parallel = mesh.expert->size();
  return info;
}

// What a checkpoint is made of, and how one is loaded.
struct Tagging {
  int64_t num_experts;  // on four ranks 6: 2, 2, 1, 1; 5: 2, 1, 1, 1
  bool zero1;           // when saved; when loaded, the opposite
  at::ScalarType dtype;
};

constexpr int kSalt = 7;
constexpr int64_t kUpdates = 41;

void SaveModel(const std::string& run_dir, const Tagging& tagging, TaggedModel& model,
               const ProcessMesh& mesh) {
  const absl::Status saved = SaveCheckpoint(run_dir, InfoAt(kUpdates, tagging.num_experts, mesh),
                                            model.buffers(), model.optimizer(), mesh);
  EXPECT_TRUE(saved.ok()) << saved;
}

// Loads into `model` and expects every value and moment in the place where it belongs.
void ExpectLoads(const std::string& run_dir, const Tagging& tagging, TaggedModel& model,
                 const ProcessMesh& mesh) {
  const auto checkpoint = ResolveCheckpoint(run_dir);
  // Agreed, since what follows is collective.
  absl::Status loaded = Agree(*mesh.world, checkpoint.status());
  if (loaded.ok()) {
    loaded = LoadCheckpoint(*checkpoint, tagging.num_experts, model.buffers(), model.optimizer(),
                            *mesh.world);
  }
  EXPECT_TRUE(loaded.ok()) << loaded;
  EXPECT_THAT(model.WrongValues(kSalt), IsEmpty());
  EXPECT_THAT(model.WrongMoments(kSalt), IsEmpty());
  EXPECT_EQ(model.optimizer().steps(), kUpdates);
}

std::unique_ptr<TaggedModel> ModelOn(const ProcessMesh& mesh, const Tagging& tagging, bool zero1) {
  return std::make_unique<TaggedModel>(
      TaggedLayoutOn(mesh, tagging.num_experts, zero1, tagging.dtype));
}

// Every element is made from the name of its tensor, layer and expert included.
void ExpectLoadsAtEveryLayoutAndBack(const Layout& from, const Tagging& tagging) {
  const SharedFolder folder;
  const std::string saved = folder / LayoutName(from);
  const std::optional<ProcessMesh> saver = MeshOf(from);
  if (saver) {
    const auto model = ModelOn(*saver, tagging, tagging.zero1);
    model->Fill(kSalt, kUpdates);
    SaveModel(saved, tagging, *model, *saver);
  }
  World()->Barrier();
  for (const Layout& to : Layouts()) {
    SCOPED_TRACE("from " + LayoutName(from) + " to " + LayoutName(to));
    const std::string moved = saved + "_to_" + LayoutName(to);
    if (const std::optional<ProcessMesh> loader = MeshOf(to)) {
      const auto model = ModelOn(*loader, tagging, !tagging.zero1);
      ExpectLoads(saved, tagging, *model, *loader);
      SaveModel(moved, tagging, *model, *loader);
    }
    World()->Barrier();
    if (saver) ExpectLoads(moved, tagging, *ModelOn(*saver, tagging, tagging.zero1), *saver);
  }
}

TEST(ReshardTest, SixExpertsLoadAtEveryLayoutWithZero1AndBack) {
  for (const Layout& from : Layouts())
    ExpectLoadsAtEveryLayoutAndBack(from, {6, /*zero1=*/false, at::kFloat});
}

TEST(ReshardTest, FiveExpertsLoadAtEveryLayoutWithoutZero1AndBack) {
  for (const Layout& from : Layouts())
    ExpectLoadsAtEveryLayoutAndBack(from, {5, /*zero1=*/true, at::kDouble});
}

// Those tests would prove nothing if a tensor in another's place went unseen.
TEST(TaggedModelTest, SeesAnExpertInAnothersPlace) {
  TaggedModel model({});
  model.Fill(kSalt, kUpdates);
  std::vector<NamedTensor> experts;
  for (const FlatBuffer& buffer : model.buffers()) {
    for (const Parameter* parameter : buffer.parameters()) {
      if (parameter->name != "h.1.mlp.experts.expert_{e}.c_fc.weight") continue;
      experts = GlobalViews(*parameter, parameter->value);
    }
  }
  ASSERT_EQ(experts.size(), 6u);
  const at::Tensor fourth = experts[4].tensor.clone();
  experts[4].tensor.copy_(experts[5].tensor);
  experts[5].tensor.copy_(fourth);
  EXPECT_THAT(model.WrongValues(kSalt),
              testing::ElementsAre("h.1.mlp.experts.expert_4.c_fc.weight",
                                   "h.1.mlp.experts.expert_5.c_fc.weight"));
  EXPECT_THAT(model.WrongMoments(kSalt), IsEmpty());
}

constexpr int64_t kBefore = 3, kAfter = 20;  // steps

// Losses of the steps after a checkpoint, which this writes (after steps of its own) or reads.
std::vector<double> Train(const std::string& run_dir, int64_t num_experts, bool zero1, bool resume,
                          const ProcessMesh& mesh) {
  RunConfig config =
      TinyConfig(ModelConfig::hyper, static_cast<int>(num_experts), RuntimeConfig::float32);
  config.mutable_train()->set_steps(kBefore + kAfter);
  config.mutable_optimizer()->set_zero1(zero1);
  Trainer trainer(config, mesh, TinyRows(config));
  absl::Status status;
  if (resume) {
    status = LoadCheckpoint(ResolveCheckpoint(run_dir).value(), num_experts, trainer.buffers(),
                            trainer.optimizer(), *mesh.world);
    trainer.model().ParametersChanged();
  } else {
    for (int64_t step = 0; step < kBefore; ++step) trainer.TrainStep(step);
    status = SaveCheckpoint(run_dir, InfoAt(kBefore, num_experts, mesh), trainer.buffers(),
                            trainer.optimizer(), mesh);
  }
  EXPECT_TRUE(status.ok()) << status;
  std::vector<double> losses;
  for (int64_t step = kBefore; step < kBefore + kAfter; ++step)
    losses.push_back(trainer.TrainStep(step).loss);
  return losses;
}

// Every layout goes on from a checkpoint as the layout that wrote it does, up to rounding. Two that
// wrote it are enough: that all layouts read the same from all, the tests above show.
void ExpectTrainsAlikeAtEveryLayout(const Layout& from, int64_t num_experts) {
  const SharedFolder folder;
  std::vector<double> uninterrupted;
  if (const std::optional<ProcessMesh> saver = MeshOf(from))
    uninterrupted = Train(folder.path(), num_experts, false, false, *saver);
  World()->Barrier();
  bool zero1 = false;
  for (const Layout& to : Layouts()) {
    zero1 = !zero1;
    const std::optional<ProcessMesh> loader = MeshOf(to);
    if (!loader) continue;
    const std::vector<double> losses = Train(folder.path(), num_experts, zero1, true, *loader);
    for (size_t step = 0; World()->rank() == 0 && step < losses.size(); ++step) {
      EXPECT_LE(RelativeError(losses[step], uninterrupted[step]), 1e-5)
          << "from " << LayoutName(from) << " to " << LayoutName(to) << ", step " << step;
    }
  }
}

TEST(ReshardTest, TrainsOnFromOneRankAtEveryLayout) { ExpectTrainsAlikeAtEveryLayout({1, 1}, 6); }

TEST(ReshardTest, TrainsOnFromTheLargestLayoutAtEveryOther) {
  ExpectTrainsAlikeAtEveryLayout(Layouts().back(), 5);
}

}  // namespace
}  // namespace hypermoe
