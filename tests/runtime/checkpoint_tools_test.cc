// What `hypermoe checkpoint` shows: audits, lists, and resharding as far as one process can tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/checkpoint_audit.h"
#include "runtime/checkpoint_reshard.h"
#include "tests/support/checkpoint_fixture.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using CheckpointToolsTest = CheckpointTest;

void FlipByte(const std::string& path, size_t at) {
  std::string bytes = ReadFile(path);
  bytes.at(at) ^= 0x10;
  WriteFile(path, bytes);
}

TEST_F(CheckpointToolsTest, AnAuditOfARunNamesAllDamageOfAllCheckpoints) {
  for (const int64_t step : {1, 2, 3, 4}) Save(step);
  const std::string file = "/rank_00000.safetensors";
  Rechunk(Folder(2), 256);
  const size_t size = fs::file_size(Folder(2) + file);
  FlipByte(Folder(2) + file, size - 1);
  FlipByte(Folder(2) + file, size - 600);
  FlipByte(Folder(2) + file, 20);
  fs::remove(Folder(4) + file);

  const auto audits = AuditCheckpoints(run_.path(), *mesh_.world);
  ASSERT_TRUE(audits.ok()) << audits.status();
  ASSERT_EQ(audits->size(), 4u);
  for (const int64_t step : {1, 3}) {
    const CheckpointAudit& intact = (*audits)[step - 1];
    EXPECT_EQ(intact.checkpoint, Folder(step));
    EXPECT_THAT(intact.damage, IsEmpty());
    EXPECT_EQ(intact.files, 1);
    EXPECT_EQ(intact.tensors, 84);
    EXPECT_EQ(intact.bytes, static_cast<int64_t>(fs::file_size(Folder(step) + file)));
  }
  EXPECT_THAT((*audits)[1].damage,
              ElementsAre(HasSubstr("bytes 0 to 255"), HasSubstr("tensor '"),
                          HasSubstr("to " + std::to_string(size - 1) + " of")));
  EXPECT_THAT((*audits)[3].damage, ElementsAre(HasSubstr("is missing")));

  const auto one = AuditCheckpoints(Folder(3), *mesh_.world);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->size(), 1u);
}

TEST_F(CheckpointToolsTest, AnAuditComparesHeadersWithTheManifest) {
  const std::string checkpoint = Save(1);
  CheckpointManifest manifest = ReadManifest(checkpoint).value();
  manifest.tensors["ln_f.bias"].shape = {1, 3};
  WriteFile(checkpoint + "/manifest.json", ManifestText(manifest));
  EXPECT_THAT(AuditCheckpoints(checkpoint, *mesh_.world)->front().damage,
              ElementsAre(AllOf(HasSubstr("'ln_f.bias'"), HasSubstr("as manifest.json says"))));
  manifest.tensors.erase("ln_f.bias");
  WriteFile(checkpoint + "/manifest.json", ManifestText(manifest));
  EXPECT_THAT(AuditCheckpoints(checkpoint, *mesh_.world)->front().damage,
              ElementsAre(HasSubstr("84 tensors, manifest.json lists 83")));
}

TEST_F(CheckpointToolsTest, AuditsAndListsSayWhereNothingIs) {
  for (const absl::Status& status : {AuditCheckpoints(run_ / "no", *mesh_.world).status(),
                                     ListCheckpoints(run_ / "no").status()}) {
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
    EXPECT_THAT(Message(status), HasSubstr("no: no such folder"));
  }
  for (const absl::Status& status : {AuditCheckpoints(run_.path(), *mesh_.world).status(),
                                     ListCheckpoints(run_.path()).status()}) {
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
    EXPECT_THAT(Message(status), HasSubstr("holds no checkpoint"));
  }
}

TEST_F(CheckpointToolsTest, AListShowsEachAndWhereAResumeBegins) {
  info_.world_size = 4;
  info_.expert_parallel = 2;
  for (const int64_t step : {1, 3, 2}) Save(step);
  FlipByte(Folder(3) + "/manifest.json", 40);
  const auto listed = ListCheckpoints(run_.path());
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 3u);
  for (const int64_t step : {1, 2}) {
    const ListedCheckpoint& line = (*listed)[step - 1];
    EXPECT_EQ(line.step, step);
    EXPECT_EQ(line.latest, step == 2);
    EXPECT_EQ(line.world_size, 4);
    EXPECT_EQ(line.expert_parallel, 2);
    EXPECT_EQ(line.tensors, 84);
    EXPECT_TRUE(line.has_moments);
    EXPECT_NEAR(static_cast<double>(line.written), static_cast<double>(time(nullptr)), 600);
    EXPECT_EQ(line.damage, "");
  }
  EXPECT_EQ((*listed)[2].name, "step_00000003");
  EXPECT_THAT((*listed)[2].damage, HasSubstr("manifest.json"));
}

TEST_F(CheckpointToolsTest, ReshardingTouchesNoRunAndCopiesNoDamage) {
  const std::string checkpoint = Save(1);
  ReshardOptions options;
  options.checkpoint = checkpoint;
  options.ranks = options.expert_parallel = 2;
  options.output = run_.path();
  const absl::Status used = ReshardCheckpoint(options, *mesh_.world).status();
  EXPECT_EQ(ExitCodeOf(used), ExitCode::kUsage);
  EXPECT_THAT(Message(used), AllOf(HasSubstr("--output"), HasSubstr("already holds a run")));

  FlipByte(checkpoint + "/rank_00000.safetensors",
           fs::file_size(checkpoint + "/rank_00000.safetensors") - 1);
  options.output = run_ / "resharded";
  const absl::Status damaged = ReshardCheckpoint(options, *mesh_.world).status();
  EXPECT_EQ(ExitCodeOf(damaged), ExitCode::kBadData);
  EXPECT_THAT(Message(damaged), HasSubstr("rank_00000.safetensors' is damaged"));
  EXPECT_THAT(CheckpointSteps(options.output).value(), IsEmpty());
  EXPECT_TRUE(fs::is_empty(options.output + "/checkpoints"));
}

TEST_F(CheckpointToolsTest, ExpertsAreKnownByTheirTensorsNames) {
  EXPECT_EQ(ExpertOfTensor("h.0.mlp.experts.expert_5.c_fc.weight"), 5);
  EXPECT_EQ(ExpertOfTensor("optimizer.second_moment.h.11.mlp.experts.expert_17.c_proj.bias"), 17);
  for (const char* name : {"wte.weight", "hypermoe.expert_embedding.weight", "h.0.mlp.w_gate",
                           "h.0.mlp.experts.expert_.c_fc", "h.0.mlp.shared_expert_1.c_fc"}) {
    EXPECT_EQ(ExpertOfTensor(name), -1) << name;
  }
}

}  // namespace
}  // namespace hypermoe
