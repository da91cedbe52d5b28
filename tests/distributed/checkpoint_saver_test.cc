// Saving beside training at every world size: the votes of steps, what is copied of a sharded
// optimizer, and ranks that fail or are late.
#include "runtime/checkpoint_saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <optional>
#include <thread>

#include "runtime/checkpoint.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

RunConfig Config(bool zero1) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32);
  config.mutable_optimizer()->set_zero1(zero1);
  return config;
}

// A trainer and the saver of its checkpoints in a folder of all ranks.
struct Saving {
  Saving(const RunConfig& config, const ProcessMesh& mesh, CheckpointSaverHooks hooks = {})
      : trainer(config, mesh, TinyRows(config)),
        saver(
            folder.path(), InfoOf(config, mesh), mesh, 0,
            [this](const std::string& note) { notes.push_back(note); }, std::move(hooks)) {}

  static CheckpointInfo InfoOf(const RunConfig& config, const ProcessMesh& mesh) {
    CheckpointInfo info;
    info.config = config;
    info.data_fingerprint = "tiny";
    info.world_size = mesh.world->size();
    info.expert_parallel = mesh.expert->size();
    return info;
  }

  absl::Status Save() { return saver.Save(steps, trainer.buffers(), trainer.optimizer()); }
  // A step with its votes; how many ranks were at work on a checkpoint when it began.
  int64_t Step() {
    const StepResult result =
        trainer.TrainStep(steps++, [this] { return StepVotes{.saving = saver.working() ? 1 : 0}; });
    status.Update(saver.Advance(result.votes.saving));
    return result.votes.saving;
  }
  std::string Path(int64_t step) const { return CheckpointFolder(folder.path(), step).path(); }

  const SharedFolder folder;
  std::vector<std::string> notes;
  Trainer trainer;
  CheckpointSaver saver;
  int64_t steps = 0;
  absl::Status status;  // of Advance
};

// This rank's values and moments. Collective.
NamedTensors StateOf(Trainer& trainer) {
  NamedTensors state = Values(trainer);
  state.merge(OptimizerState(trainer));
  return state;
}

std::vector<std::string> Differences(const NamedTensors& actual, const NamedTensors& expected) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : expected) {
    if (!actual.at(name).equal(tensor)) names.push_back(name);
  }
  return names;
}

// The state that a checkpoint holds, of this rank.
NamedTensors Stored(const std::string& checkpoint, const RunConfig& config,
                    const ProcessMesh& mesh) {
  Trainer loaded(config, mesh, TinyRows(config));
  const absl::Status status = LoadCheckpoint(checkpoint, config.model().num_experts(),
                                             loaded.buffers(), loaded.optimizer(), *mesh.world);
  EXPECT_TRUE(status.ok()) << status;
  return StateOf(loaded);
}

// Saves after three steps, trains on while all writers are held, then lets them go; what is stored
// against what was at the time of the save, by names.
std::vector<std::string> TrainOnWhileSaving(const RunConfig& config, const ProcessMesh& mesh,
                                            CheckpointSnapshot::HostMemory memory) {
  std::promise<void> open;
  const std::shared_future<void> opened = open.get_future().share();
  Saving saving(config, mesh, {[opened](const std::string&) { opened.wait(); }, memory});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(saving.Step(), 0);
  const NamedTensors expected = StateOf(saving.trainer);
  EXPECT_TRUE(saving.Save().ok());
  for (int i = 0; i < 2; ++i) EXPECT_EQ(saving.Step(), World()->size());
  EXPECT_FALSE(fs::exists(saving.Path(3)));
  open.set_value();
  while (saving.saver.newest() < 3 && saving.status.ok()) saving.Step();
  EXPECT_TRUE(saving.status.ok()) << saving.status;
  EXPECT_THAT(saving.notes, SizeIs(World()->rank() == 0 ? 1 : 0));
  World()->Barrier();
  return Differences(Stored(saving.Path(3), config, mesh), expected);
}

TEST(CheckpointSaverTest, StoresTheStepThatWasSavedWhileTrainingGoesOn) {
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    for (const bool zero1 : {false, true}) {
      EXPECT_THAT(TrainOnWhileSaving(Config(zero1), mesh, CheckpointSnapshot::NewHostMemory),
                  IsEmpty())
          << "degree " << degree << ", zero1 " << zero1;
    }
  }
}

// The control of the test above. (Every rank reads values that rank 0 has written.)
TEST(CheckpointSaverTest, ASnapshotThatSharesTheTensorsMemoryIsNoticed) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  for (const bool zero1 : {false, true}) {
    EXPECT_THAT(
        TrainOnWhileSaving(Config(zero1), mesh, [](const at::Tensor& like) { return like; }),
        Not(IsEmpty()));
  }
}

// The state that follows is the one without any save: gathering moments leaves no trace.
TEST(CheckpointSaverTest, SavingChangesNothingInTraining) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  Trainer undisturbed(Config(true), mesh, TinyRows(Config(true)));
  Saving saving(Config(true), mesh);
  for (int64_t step = 0; step < 6; ++step) {
    undisturbed.TrainStep(step);
    saving.Step();
    if (step % 2 == 1) {
      ASSERT_TRUE(saving.Save().ok());
    }
  }
  ASSERT_TRUE(saving.saver.Wait().ok());
  EXPECT_THAT(Differences(StateOf(saving.trainer), StateOf(undisturbed)), IsEmpty());
  EXPECT_EQ(saving.saver.newest(), 6);
}

// Watches for the checkpoint's name while one rank after the other is late; says what it saw.
std::vector<std::string> NamesSeenEarly(bool publish_early) {
  std::vector<std::string> seen;
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  for (int late = 0; late < World()->size(); ++late) {
    std::promise<void> open;
    const std::shared_future<void> opened = open.get_future().share();
    std::string path;
    const auto before = [&, opened](const std::string& phase) {
      if (phase == "write" && World()->rank() == late) opened.wait();
      if (publish_early && phase == "write" && World()->rank() == 0) fs::create_directory(path);
    };
    Saving saving(Config(false), mesh, {before});
    path = saving.Path(1);
    saving.Step();
    EXPECT_TRUE(saving.Save().ok());
    const auto look = [&] {
      if (fs::exists(path)) seen.push_back(path);
    };
    // Until all others have written, and some steps more.
    while (saving.Step() > 1) look();
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(saving.Step(), 1);
      look();
    }
    open.set_value();
    while (saving.saver.newest() < 1 && saving.status.ok()) saving.Step();
    World()->Barrier();
    EXPECT_TRUE(fs::exists(path));
  }
  return seen;
}

TEST(CheckpointSaverTest, HasNoNameBeforeTheLastRankHasWritten) {
  EXPECT_THAT(NamesSeenEarly(false), IsEmpty());
}

// The control: one that rank 0 publishes as soon as it can is seen where another rank is late.
TEST(CheckpointSaverTest, ANameBeforeTheLastRankHasWrittenIsNoticed) {
  if (World()->size() == 1) return;  // nobody else can be late
  EXPECT_THAT(NamesSeenEarly(true), Not(IsEmpty()));
}

TEST(CheckpointSaverTest, ARankThatCannotWriteStopsAllOrNone) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  for (const auto on_error : {CheckpointConfig::stop, CheckpointConfig::continue_}) {
    for (int failing = 0; failing < World()->size(); ++failing) {
      RunConfig config = Config(false);
      config.mutable_checkpoint()->set_on_save_error(on_error);
      Saving saving(config, mesh);
      saving.Step();
      ASSERT_TRUE(saving.Save().ok());
      ASSERT_TRUE(saving.saver.Wait().ok());
      saving.notes.clear();
      saving.Step();
      {
        std::optional<FileSizeLimit> limit;
        if (World()->rank() == failing) limit.emplace(100);
        EXPECT_TRUE(saving.Save().ok());  // what fails, fails later
        while (saving.saver.working()) std::this_thread::yield();
      }
      while (saving.Step() > 0) continue;
      const std::string file = "rank_0000" + std::to_string(failing) + ".safetensors";
      const auto problem = AllOf(HasSubstr("the checkpoint of step 2"), HasSubstr(file),
                                 HasSubstr("File too large"));
      if (on_error == CheckpointConfig::stop) {
        EXPECT_EQ(ExitCodeOf(saving.status), ExitCode::kIo);
        EXPECT_THAT(std::string(saving.status.message()), problem);
      } else {
        EXPECT_TRUE(saving.status.ok()) << saving.status;
        if (World()->rank() == 0) {
          EXPECT_THAT(saving.notes, ElementsAre(problem));
        }
      }
      World()->Barrier();
      EXPECT_EQ(saving.saver.newest(), 1);
      EXPECT_TRUE(ReadManifest(saving.Path(1)).ok());
      EXPECT_FALSE(fs::exists(saving.Path(2)));
      EXPECT_FALSE(fs::exists(saving.Path(2) + ".tmp"));
      World()->Barrier();
      // There is room again.
      const int64_t step = saving.steps;
      ASSERT_TRUE(saving.Save().ok());
      ASSERT_TRUE(saving.saver.Wait().ok());
      EXPECT_EQ(saving.saver.newest(), step);
      World()->Barrier();
      EXPECT_TRUE(ReadManifest(saving.Path(step)).ok());
    }
  }
}

}  // namespace
}  // namespace hypermoe
