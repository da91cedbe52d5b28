#include "runtime/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "runtime/checkpoint_reshard.h"
#include "runtime/config_loader.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tagged_model.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr int64_t kNumExperts = 6;  // on 4 ranks: 2, 2, 1, 1

TaggedLayout OnThisRank(const ProcessMesh& mesh) { return TaggedLayoutOn(mesh, kNumExperts); }

CheckpointInfo Info(int64_t step, const ProcessMesh& mesh) {
  CheckpointInfo info;
  info.step = step;
  info.config = LoadConfig("", {"model.num_experts=6"}).value();
  info.data_fingerprint = "12:0123";
  info.world_size = mesh.world->size();
  info.expert_parallel = mesh.expert->size();
  return info;
}

void SaveTagged(const std::string& run_dir, int64_t step, const ProcessMesh& mesh, int salt) {
  TaggedModel model(OnThisRank(mesh));
  model.Fill(salt, step);
  const absl::Status saved =
      SaveCheckpoint(run_dir, Info(step, mesh), model.buffers(), model.optimizer(), mesh);
  EXPECT_TRUE(saved.ok()) << saved;
}

void ExpectLoads(const std::string& run_dir, int64_t step, const ProcessMesh& mesh, int salt) {
  const absl::StatusOr<std::string> checkpoint = ResolveCheckpoint(run_dir);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  TaggedModel model(OnThisRank(mesh));
  const absl::Status loaded =
      LoadCheckpoint(*checkpoint, kNumExperts, model.buffers(), model.optimizer(), *mesh.world);
  EXPECT_TRUE(loaded.ok()) << loaded;
  EXPECT_THAT(model.WrongValues(salt), IsEmpty());
  EXPECT_THAT(model.WrongMoments(salt), IsEmpty());
  EXPECT_EQ(model.optimizer().steps(), step);
}

TEST(CheckpointLayoutTest, EachTensorIsWrittenOnceByAsManyRanksAsShareIt) {
  const SharedFolder folder;
  for (const Layout& layout : Layouts()) {
    const auto mesh = MeshOf(layout);
    if (!mesh) continue;
    SaveTagged(folder / LayoutName(layout), 3, *mesh, 1);
    const auto manifest = ReadManifest(ResolveCheckpoint(folder / LayoutName(layout)).value());
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    EXPECT_EQ(manifest->tensors.size(), 3u * (4 + 2 * 2 * kNumExperts));
    EXPECT_EQ(manifest->files.size(), static_cast<size_t>(layout.expert));
    EXPECT_EQ(manifest->info.world_size, layout.world);
    EXPECT_EQ(manifest->info.expert_parallel, layout.expert);
    EXPECT_EQ(manifest->tensors.at("h.1.mlp.experts.expert_0.c_fc.bias").file,
              "rank_00000.safetensors");
    EXPECT_EQ(manifest->tensors.at("h.1.mlp.experts.expert_5.c_fc.bias").file,
              "rank_0000" + std::to_string(layout.expert - 1) + ".safetensors");
  }
}

TEST(CheckpointFailureTest, ARankThatCannotWriteFailsAllAndLeavesTheOlderCheckpoint) {
  const SharedFolder folder;
  const int size = World()->size();
  const ProcessMesh mesh = ProcessMesh::Create(World(), size);
  SaveTagged(folder.path(), 1, mesh, 1);
  for (int failing = 0; failing < size; ++failing) {
    TaggedModel model(OnThisRank(mesh));
    model.Fill(2, 2);
    absl::Status status;
    {
      std::optional<FileSizeLimit> limit;
      if (World()->rank() == failing) limit.emplace(100);
      status =
          SaveCheckpoint(folder.path(), Info(2, mesh), model.buffers(), model.optimizer(), mesh);
    }
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("rank_0000" + std::to_string(failing) + ".safetensors"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("File too large"));
    const std::vector<std::string> messages = World()->AllGatherText(std::string(status.message()));
    EXPECT_EQ(std::set<std::string>(messages.begin(), messages.end()).size(), 1u);
    World()->Barrier();
    std::vector<std::string> left;
    for (const auto& entry : fs::directory_iterator(folder / "checkpoints"))
      left.push_back(entry.path().filename());
    EXPECT_THAT(left, UnorderedElementsAre("latest", "step_00000001"));
    ExpectLoads(folder.path(), 1, mesh, 1);
    World()->Barrier();
  }
}

TEST(CheckpointFailureTest, AFolderThatRankZeroCannotMakeFailsAll) {
  const SharedFolder folder;
  if (World()->rank() == 0) WriteFile(folder / "file", "");
  const ProcessMesh mesh = ProcessMesh::Create(World(), 1);
  TaggedModel model(OnThisRank(mesh));
  const absl::Status status =
      SaveCheckpoint(folder / "file", Info(1, mesh), model.buffers(), model.optimizer(), mesh);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder / "file"));
}

// Damage that only the last rank reads: no rank changes a value, and all say the same.
TEST(CheckpointFailureTest, DamageThatOneRankFindsChangesNoRank) {
  const SharedFolder folder;
  const int size = World()->size();
  const ProcessMesh mesh = ProcessMesh::Create(World(), size);
  SaveTagged(folder.path(), 1, mesh, 1);
  const std::string checkpoint = ResolveCheckpoint(folder.path()).value();
  const std::string name = "rank_0000" + std::to_string(size - 1) + ".safetensors";
  World()->Barrier();
  if (World()->rank() == 0) {
    std::string bytes = ReadFile(checkpoint + "/" + name);
    bytes.back() ^= 1;
    WriteFile(checkpoint + "/" + name, bytes);
  }
  World()->Barrier();
  TaggedModel model(OnThisRank(mesh));
  // By itself a rank finds only what it reads.
  const std::shared_ptr<Communicator> alone = NewSelfCommunicator("world");
  const absl::Status local =
      LoadCheckpoint(checkpoint, kNumExperts, model.buffers(), model.optimizer(), *alone);
  EXPECT_EQ(local.ok(), World()->rank() != size - 1) << local;
  EXPECT_EQ(model.AllZero(), !local.ok());

  TaggedModel together(OnThisRank(mesh));
  const absl::Status agreed =
      LoadCheckpoint(checkpoint, kNumExperts, together.buffers(), together.optimizer(), *World());
  EXPECT_EQ(ExitCodeOf(agreed), ExitCode::kBadData);
  EXPECT_THAT(std::string(agreed.message()), HasSubstr(checkpoint + "/" + name + "'"));
  EXPECT_THAT(std::string(agreed.message()), HasSubstr("tensor '"));
  EXPECT_TRUE(together.AllZero());
  const std::vector<std::string> said = World()->AllGatherText(std::string(agreed.message()));
  EXPECT_EQ(std::set<std::string>(said.begin(), said.end()).size(), 1u);
}

// Folders of the same name on machines that do not share them.
TEST(CheckpointFailureTest, RanksThatSeeDifferentCheckpointsRefuse) {
  if (World()->size() == 1) GTEST_SKIP() << "one rank sees one";
  const SharedFolder folder;
  // Each rank its own copy: of the same step, of other values on the last one.
  const bool last = World()->rank() == World()->size() - 1;
  const std::string own = folder / ("machine_" + std::to_string(World()->rank()));
  const ProcessMesh alone = ProcessMesh::Create(NewSelfCommunicator("world"), 1);
  SaveTagged(own, 1, alone, last ? 2 : 1);
  TaggedModel model(OnThisRank(alone));
  const absl::Status status = LoadCheckpoint(own + "/checkpoints/step_00000001", kNumExperts,
                                             model.buffers(), model.optimizer(), *World());
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("rank " + std::to_string(World()->size() - 1) + " differs from rank 0"));
  EXPECT_TRUE(model.AllZero());
}

std::map<std::string, std::string> FilesIn(const std::string& checkpoint) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(checkpoint))
    files[entry.path().filename()] = ReadFile(entry.path());
  return files;
}

TEST(CheckpointReshardTest, WritesWhatThoseRanksWouldHaveWritten) {
  const SharedFolder folder;
  for (const Layout& layout : Layouts()) {
    if (const auto mesh = MeshOf(layout)) {
      TaggedModel model(OnThisRank(*mesh));
      model.Fill(1, 7);
      CheckpointInfo info = Info(7, *mesh);
      info.config.mutable_mesh()->set_expert_parallel(layout.expert);
      EXPECT_TRUE(SaveCheckpoint(folder / LayoutName(layout), info, model.buffers(),
                                 model.optimizer(), *mesh)
                      .ok());
    }
    World()->Barrier();
  }
  std::vector<Layout> sources = {Layouts().front()};
  if (Layouts().size() > 1) sources.push_back(Layouts().back());
  for (const Layout& from : sources) {
    for (const Layout& to : Layouts()) {
      SCOPED_TRACE(LayoutName(from) + " as " + LayoutName(to));
      ReshardOptions options;
      options.checkpoint = folder / LayoutName(from);
      options.ranks = to.world;
      options.expert_parallel = to.expert;
      options.output = folder / (LayoutName(from) + "_as_" + LayoutName(to));
      const auto made = ReshardCheckpoint(options, *World());
      ASSERT_TRUE(made.ok()) << made.status();
      World()->Barrier();
      if (World()->rank() > 0) continue;
      const auto found = FilesIn(*made);
      const auto wanted = FilesIn(ResolveCheckpoint(folder / LayoutName(to)).value());
      EXPECT_EQ(found.size(), wanted.size());
      for (const auto& [name, bytes] : wanted)
        EXPECT_TRUE(found.contains(name) && found.at(name) == bytes) << name;
    }
  }
}

}  // namespace
}  // namespace hypermoe
