#include "runtime/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint_tensors.h"
#include "tests/support/checkpoint_fixture.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST_F(CheckpointTest, KeepsEverything) {
  const std::string checkpoint = Save(100);
  EXPECT_THAT(Names(checkpoint), ElementsAre("manifest.json", "rank_00000.safetensors"));
  TaggedModel model({});
  const absl::Status loaded =
      LoadCheckpoint(checkpoint, kNumExperts, model.buffers(), model.optimizer(), *mesh_.world);
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_THAT(model.WrongValues(1), IsEmpty());
  EXPECT_THAT(model.WrongMoments(1), IsEmpty());
  EXPECT_EQ(model.optimizer().steps(), 100);

  const auto info = ReadCheckpointInfo(checkpoint);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->step, 100);
  EXPECT_EQ(ConfigText(info->config), ConfigText(info_.config));
  EXPECT_EQ(info->data_fingerprint, "12:0123");
  EXPECT_EQ(info->world_size, 1);
  EXPECT_EQ(info->expert_parallel, 1);
  EXPECT_EQ(info->threads, 2);
}

TEST_F(CheckpointTest, TheManifestIsPlainJsonThatListsEachTensorOnce) {
  const std::string checkpoint = Save(3);
  const json manifest = json::parse(ReadFile(checkpoint + "/manifest.json"));
  EXPECT_EQ(manifest["format"], "hypermoe-checkpoint");
  EXPECT_EQ(manifest["version"], 2);
  EXPECT_EQ(manifest["optimizer_steps"], 3);
  EXPECT_EQ(manifest["files"][0]["bytes"], fs::file_size(checkpoint + "/rank_00000.safetensors"));
  // 4 tensors that are no experts', 2 layers x 2 x 6 that are; each with two moments.
  EXPECT_EQ(manifest["tensors"].size(), 3u * (4 + 2 * 2 * 6));
  const json& bias =
      manifest["tensors"]["optimizer.second_moment.h.1.mlp.experts.expert_5.c_fc.bias"];
  EXPECT_EQ(bias, json({{"file", "rank_00000.safetensors"}, {"dtype", "F32"}, {"shape", {2}}}));
}

TEST_F(CheckpointTest, ParametersAloneFillAModelOfAnotherDtype) {
  const std::string checkpoint = Save(2);
  const CheckpointTensors tensors(checkpoint, ReadManifest(checkpoint).value(),
                                  CheckpointTensors::Part::kParameters);
  TaggedLayout layout;
  layout.dtype = at::kDouble;
  TaggedModel model(layout);
  ASSERT_TRUE(FillParameters(tensors, checkpoint, kNumExperts, model.buffers()).ok());
  EXPECT_THAT(model.WrongValues(1), IsEmpty());
}

TEST_F(CheckpointTest, OneOfParametersAloneKeepsThemAndSaysSo) {
  Save(2);
  const CheckpointTensors tensors(Folder(2), ReadManifest(Folder(2)).value(),
                                  CheckpointTensors::Part::kParameters);
  info_.step = 0;
  info_.source_config = "{\"a key\": \"\u00e4\"}";
  ASSERT_TRUE(SaveParameters(run_ / "other", info_, tensors, *mesh_.world).ok());
  const std::string checkpoint = ResolveCheckpoint(run_ / "other").value();
  const CheckpointManifest manifest = ReadManifest(checkpoint).value();
  EXPECT_FALSE(manifest.info.has_moments);
  EXPECT_TRUE(ReadManifest(Folder(2)).value().info.has_moments);
  EXPECT_EQ(manifest.info.source_config, info_.source_config);
  TaggedModel model({});
  const CheckpointTensors read(checkpoint, manifest, CheckpointTensors::Part::kParameters);
  ASSERT_TRUE(FillParameters(read, checkpoint, kNumExperts, model.buffers()).ok());
  EXPECT_THAT(model.WrongValues(1), IsEmpty());
  EXPECT_THAT(LoadError(checkpoint), HasSubstr("missing tensor 'optimizer.first_moment."));
}

TEST_F(CheckpointTest, FollowsTheUmask) {
  const mode_t old = umask(0027);
  const std::string checkpoint = Save(1);
  umask(old);
  struct stat info;
  for (const std::string& name : Names(checkpoint)) {
    ASSERT_EQ(stat((checkpoint + "/" + name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0640u) << name;
  }
  ASSERT_EQ(stat(checkpoint.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0750u);
}

TEST_F(CheckpointTest, LatestIsWhatWasSavedLast) {
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), std::nullopt);
  EXPECT_EQ(LatestCheckpoint(run_ / "missing").value(), std::nullopt);
  Save(9);
  Save(100);
  fs::create_directories(run_ / "checkpoints/step_00000200.tmp");
  fs::create_directories(run_ / "checkpoints/step_300");
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(100));
  EXPECT_EQ(ResolveCheckpoint(run_.path()).value(), Folder(100));
  EXPECT_EQ(ResolveCheckpoint(Folder(9)).value(), Folder(9));
  EXPECT_EQ(ReadFile(run_ / "checkpoints/latest"), "step_00000100\n");
  // An earlier step after a later one, as when a resume has passed the later one over.
  Save(40);
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(40));
  EXPECT_THAT(CheckpointSteps(run_.path()).value(), ElementsAre(40, 9, 100));
}

// A job that dies between the folder's new name and `latest` leaves the checkpoint before.
TEST_F(CheckpointTest, AFolderThatLatestDoesNotNameYetWaits) {
  Save(1);
  const std::string before = ReadFile(run_ / "checkpoints/latest");
  Save(2);
  WriteFile(run_ / "checkpoints/latest", before);
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(1));
  Save(2, /*salt=*/2);
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(2));
}

TEST_F(CheckpointTest, WithoutAUsableLatestTheHighestStepCounts) {
  for (const int64_t step : {3, 1, 2}) Save(step);
  const std::string latest = run_ / "checkpoints/latest";
  for (const std::string text :
       {"", "step_00000009\n", "../step_00000001\n", "step_1\n", "\n", "step_00000001\nmore\n"}) {
    WriteFile(latest, text);
    EXPECT_THAT(CheckpointSteps(run_.path()).value(), ElementsAre(3, 2, 1)) << text;
  }
  fs::remove(latest);
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(3));
  // Neither followed nor waited for.
  WriteFile(run_ / "elsewhere", "step_00000001\n");
  fs::create_symlink(run_ / "elsewhere", latest);
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(3));
  fs::remove(latest);
  ASSERT_EQ(mkfifo(latest.c_str(), 0600), 0);
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(3));
}

TEST_F(CheckpointTest, ADamagedNewestIsNamedNotSkipped) {
  Save(1);
  fs::remove(Save(2) + "/manifest.json");
  const absl::Status status = LatestCheckpoint(run_.path()).status();
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
  EXPECT_THAT(Message(status), AllOf(HasSubstr(Folder(2)), HasSubstr("manifest.json is missing")));
  fs::remove_all(Folder(2));
  fs::rename(Save(3), Folder(4));
  EXPECT_THAT(Message(LatestCheckpoint(run_.path()).status()),
              AllOf(HasSubstr(Folder(4)), HasSubstr("step 3")));
}

TEST_F(CheckpointTest, ResolveSaysWhatAFolderIsNot) {
  const absl::Status missing = ResolveCheckpoint(run_ / "nowhere").status();
  EXPECT_EQ(ExitCodeOf(missing), ExitCode::kIo);
  EXPECT_THAT(Message(missing), HasSubstr("nowhere: no such folder"));
  const absl::Status empty = ResolveCheckpoint(run_.path()).status();
  EXPECT_EQ(ExitCodeOf(empty), ExitCode::kBadData);
  EXPECT_THAT(Message(empty), HasSubstr("holds no checkpoint"));
}

TEST_F(CheckpointTest, SavingRemovesWhatAKilledJobLeft) {
  fs::create_directories(run_ / "checkpoints/step_00000001.tmp");
  WriteFile(run_ / "checkpoints/step_00000001.tmp/rank_00009.safetensors", "half");
  fs::create_directories(run_ / "checkpoints/step_00000007.tmp/deep");
  WriteFile(run_ / "checkpoints/latest.tmp.123", "step_0");
  const std::string checkpoint = Save(1);
  EXPECT_THAT(Names(run_ / "checkpoints"), ElementsAre("latest", "step_00000001"));
  EXPECT_THAT(Names(checkpoint), ElementsAre("manifest.json", "rank_00000.safetensors"));
}

TEST_F(CheckpointTest, OldOnesGoWhenEnoughNewerAreThere) {
  for (const int64_t step : {1, 2, 3, 10, 20}) Save(step);
  fs::create_directories(run_ / "checkpoints/step_5");  // not one of ours
  ASSERT_TRUE(RemoveOldCheckpoints(run_.path(), 3, 10, 9).ok());
  EXPECT_EQ(Names(run_ / "checkpoints").size(), 7u);
  // A later one than the one just written neither goes nor counts.
  ASSERT_TRUE(RemoveOldCheckpoints(run_.path(), 3, 10, 2).ok());
  EXPECT_THAT(Names(run_ / "checkpoints"),
              ElementsAre("latest", "step_00000003", "step_00000010", "step_00000020", "step_5"));
  ASSERT_TRUE(RemoveOldCheckpoints(run_.path(), 10, 20, 1).ok());
  EXPECT_THAT(Names(run_ / "checkpoints"), ElementsAre("latest", "step_00000020", "step_5"));
  EXPECT_EQ(LatestCheckpoint(run_.path()).value(), Folder(20));
}

TEST_F(CheckpointTest, TheBestIsWhatARunGivesAndStays) {
  for (const int64_t step : {1, 2, 3}) Save(step);
  ASSERT_TRUE(PointToBest(run_.path(), 4).ok());
  EXPECT_EQ(ResolveCheckpoint(run_.path()).value(), Folder(3)) << "there is no 4";
  ASSERT_TRUE(PointToBest(run_.path(), 1).ok());
  EXPECT_EQ(ResolveCheckpoint(run_.path()).value(), Folder(1));
  EXPECT_EQ(ResolveCheckpoint(Folder(2)).value(), Folder(2));
  EXPECT_EQ(ResolveNewestCheckpoint(run_.path()).value(), Folder(3));
  EXPECT_THAT(CheckpointSteps(run_.path()).value(), ElementsAre(3, 2, 1)) << "for a resume";
  // It does not count among those to keep.
  ASSERT_TRUE(RemoveOldCheckpoints(run_.path(), 2, 3, 1, /*best=*/1).ok());
  EXPECT_THAT(Names(run_ / "checkpoints"),
              ElementsAre("best", "latest", "step_00000001", "step_00000003"));
  fs::remove_all(Folder(1));
  EXPECT_EQ(ResolveCheckpoint(run_.path()).value(), Folder(3)) << "what is named is gone";
}

// 8 was damaged, the run went on from 3, saved 5 and now 10: 8 is none of the two to keep.
TEST_F(CheckpointTest, AStepThatWasPassedOverDoesNotCount) {
  for (const int64_t step : {3, 8, 5}) Save(step);
  ASSERT_TRUE(RemoveOldCheckpoints(run_.path(), 3, 5, 2).ok());
  EXPECT_THAT(Names(run_ / "checkpoints"),
              ElementsAre("latest", "step_00000003", "step_00000005", "step_00000008"));
  Save(10);
  ASSERT_TRUE(RemoveOldCheckpoints(run_.path(), 5, 10, 2).ok());
  EXPECT_THAT(Names(run_ / "checkpoints"), ElementsAre("latest", "step_00000005", "step_00000010"));
}

TEST_F(CheckpointTest, AnOldOneThatCannotBeRemovedIsNamedAndTheOthersGo) {
  for (const int64_t step : {1, 2, 3}) Save(step);
  // In the way of the first, full as rename does not overwrite it.
  fs::create_directories(Folder(1) + ".tmp/full");
  const absl::Status status = RemoveOldCheckpoints(run_.path(), 2, 3, 1);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(Message(status), HasSubstr(Folder(1)));
  EXPECT_THAT(Names(run_ / "checkpoints"),
              ElementsAre("latest", "step_00000001", "step_00000001.tmp", "step_00000003"));
  EXPECT_TRUE(ReadManifest(Folder(1)).ok());
}

TEST_F(CheckpointTest, TheSameStepAgainReplacesTheOld) {
  WriteFile(Save(5, /*salt=*/1) + "/note", "of the old one");
  const std::string checkpoint = Save(5, /*salt=*/2);
  EXPECT_THAT(Names(run_ / "checkpoints"), ElementsAre("latest", "step_00000005"));
  EXPECT_THAT(Names(checkpoint), ElementsAre("manifest.json", "rank_00000.safetensors"));
  TaggedModel model({});
  ASSERT_TRUE(
      LoadCheckpoint(checkpoint, kNumExperts, model.buffers(), model.optimizer(), *mesh_.world)
          .ok());
  EXPECT_THAT(model.WrongValues(2), IsEmpty());
}

TEST_F(CheckpointTest, AnUnfinishedOneIsNeverAccepted) {
  const std::string temporary = Folder(1) + ".tmp";
  fs::rename(Save(1), temporary);
  for (const std::string& path : {temporary, temporary + "/"}) {
    EXPECT_THAT(LoadError(path), HasSubstr("was not finished"));
    EXPECT_FALSE(ResolveCheckpoint(path).ok());
  }
}

TEST_F(CheckpointTest, AFolderThatCannotBeMadeIsAnIoError) {
  WriteFile(run_ / "file", "");
  TaggedModel model({});
  const absl::Status status =
      SaveCheckpoint(run_ / "file", info_, model.buffers(), model.optimizer(), mesh_);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(Message(status), HasSubstr(run_ / "file"));
  EXPECT_THAT(Names(run_.path()), ElementsAre("file"));
}

TEST_F(CheckpointTest, AFailedRenameLeavesNothingNew) {
  Save(1);
  WriteFile(Folder(2), "in the way");
  TaggedModel model({});
  info_.step = 2;
  const absl::Status status =
      SaveCheckpoint(run_.path(), info_, model.buffers(), model.optimizer(), mesh_);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(Message(status), HasSubstr("Not a directory"));
  EXPECT_THAT(Names(run_ / "checkpoints"), ElementsAre("latest", "step_00000001", "step_00000002"));
  EXPECT_EQ(ReadFile(Folder(2)), "in the way");
}

}  // namespace
}  // namespace hypermoe
