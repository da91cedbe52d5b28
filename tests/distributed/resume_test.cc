// A run that is stopped and resumed is the run that was never stopped; a checkpoint means the same
// at every layout.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/checkpoint_audit.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/evaluator.h"
#include "runtime/generator.h"
#include "runtime/pretrain.h"
#include "tests/support/event_file_reader.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_run.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

class ResumeTest : public TinyRunTest {};

// The trace of each rank names phases and collectives of the steps that were asked for.
TEST_F(ResumeTest, ProfilesTheStepsAskedFor) {
  PretrainOptions options = Options("profiled");
  options.profile = {2, 3};
  ASSERT_TRUE(Pretrain(options, ProcessMesh::Create(World(), World()->size())).ok());
  std::ifstream in(options.run_dir + "/traces/steps_2-3.rank_0000" +
                   std::to_string(World()->rank()) + ".json");
  const nlohmann::json trace = nlohmann::json::parse(in);
  std::map<std::string, int> count;
  for (const nlohmann::json& event : trace["traceEvents"]) {
    if (event["ph"] == "X") ++count[event["name"].get<std::string>()];
  }
  EXPECT_EQ(count["step 2"], 1);
  EXPECT_EQ(count["step 3"], 1);
  EXPECT_EQ(count.count("step 4"), 0);
  // Two steps of two micro-batches; two sparse layers each.
  EXPECT_EQ(count["forward"], 4);
  EXPECT_EQ(count["reduce"], 2);
  EXPECT_EQ(count["all_to_all_counts"], 8);
  EXPECT_EQ(count["all_to_all"], World()->size() > 1 ? 32 : 0);
  EXPECT_GT(count["all_reduce"], 4);

  for (const ProfiledSteps& outside : {ProfiledSteps{1, 2}, ProfiledSteps{12, 13}}) {
    PretrainOptions again = Options("profiled");
    again.profile = outside;
    EXPECT_EQ(ExitCodeOf(Pretrain(again, ProcessMesh::Create(World(), 1))), ExitCode::kUsage);
  }
}

TEST_F(ResumeTest, IsBitForBitTheRunThatWasNeverStopped) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  ASSERT_TRUE(Pretrain(Options("whole"), mesh).ok());
  // Stops after a validation and between two, and (11) where a checkpoint at 8 exists too.
  for (const int64_t stop : {3, 5, 11}) {
    PretrainOptions options = Options("stopped");
    options.stop_at_step = stop;
    // What may change on the way without changing a bit.
    options.config.mutable_optimizer()->set_zero1(stop == 5);
    ASSERT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kStopped);
  }
  ASSERT_TRUE(Pretrain(Options("stopped"), mesh).ok());
  // Once more: complete, so nothing may be added.
  ASSERT_TRUE(Pretrain(Options("stopped"), mesh).ok());

  ASSERT_GT(StoredTensors(folder_ + "/whole")
                .count("optimizer.second_moment.h.0.mlp.experts.expert_5.c_fc.weight"),
            0u);
  ExpectSameTensors(folder_ + "/stopped", folder_ + "/whole");
  const std::vector<std::string> lines = Metrics(folder_ + "/whole");
  EXPECT_EQ(lines.size(), 12u + 4u);
  EXPECT_EQ(lines, Metrics(folder_ + "/stopped"));
}

TEST_F(ResumeTest, RepeatsNoStepAfterACrash) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  ASSERT_TRUE(Pretrain(Options("whole"), mesh).ok());
  // As a crash leaves it after step 12: the newest checkpoint is older than the last line, which is
  // torn.
  if (World()->rank() == 0) {
    fs::copy(folder_ + "/whole", folder_ + "/crashed", fs::copy_options::recursive);
    fs::remove_all(folder_ + "/crashed/checkpoints/step_00000012");
    std::ofstream(folder_ + "/crashed/metrics.jsonl", std::ios::app) << "{\"kind\":\"tra";
  }
  World()->Barrier();
  ASSERT_TRUE(Pretrain(Options("crashed"), mesh).ok());
  EXPECT_EQ(Metrics(folder_ + "/whole"), Metrics(folder_ + "/crashed"));
}

// The checkpoint of a step.
std::string StepFolder(const std::string& run_dir, int step) {
  char name[64];
  std::snprintf(name, sizeof(name), "/checkpoints/step_%08d", step);
  return run_dir + name;
}

// The file of the last rank that writes one: of experts that the other ranks do not hold.
std::string LastFile(const std::string& checkpoint) {
  std::string last;
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    if (entry.path().extension() == ".safetensors") last = std::max(last, entry.path().string());
  }
  return last;
}

void FlipLastByte(const std::string& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const int byte = file.get();
  file.seekp(-1, std::ios::end);
  file.put(static_cast<char>(byte ^ 1));
  EXPECT_TRUE(file.flush().good()) << path;
}

// Every file below a folder.
std::map<std::string, std::string> Snapshot(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    files[entry.path().string()] = {std::istreambuf_iterator<char>(in), {}};
  }
  return files;
}

// Runs it, with what rank 0 said on stderr.
absl::Status PretrainAndListen(const PretrainOptions& options, const ProcessMesh& mesh,
                               std::string* said) {
  testing::internal::CaptureStderr();
  const absl::Status status = Pretrain(options, mesh);
  *said = World()->AllGatherText(testing::internal::GetCapturedStderr())[0];
  return status;
}

TEST_F(ResumeTest, GoesOnFromTheOneBeforeADamagedCheckpoint) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  ASSERT_TRUE(Pretrain(Options("whole"), mesh).ok());
  const std::string run = folder_ + "/damaged";
  std::string file;
  if (World()->rank() == 0) {
    fs::copy(folder_ + "/whole", run, fs::copy_options::recursive);
    file = LastFile(StepFolder(run, 12));
    FlipLastByte(file);
  }
  file = World()->AllGatherText(file)[0];
  // On the way it saves a step that lies before the damaged one, and may keep only two.
  PretrainOptions options = Options("damaged");
  options.config.mutable_checkpoint()->set_keep(2);
  options.stop_at_step = 10;
  std::string said;
  ASSERT_EQ(ExitCodeOf(PretrainAndListen(options, mesh, &said)), ExitCode::kStopped);
  for (const std::string& part :
       {"warning: checkpoint " + StepFolder(run, 12) + " is damaged", "file '" + file + "'",
        std::string("tensor '"), "resuming from " + StepFolder(run, 8)}) {
    EXPECT_NE(said.find(part), std::string::npos) << part << "\n" << said;
  }
  EXPECT_FALSE(fs::exists(StepFolder(run, 4)));
  EXPECT_TRUE(fs::exists(StepFolder(run, 8)));
  EXPECT_TRUE(fs::exists(StepFolder(run, 12))) << "left for people";
  World()->Barrier();

  options.stop_at_step = 0;
  ASSERT_TRUE(PretrainAndListen(options, mesh, &said).ok());
  EXPECT_NE(said.find("resuming from " + StepFolder(run, 10)), std::string::npos) << said;
  EXPECT_EQ(said.find("warning"), std::string::npos) << said;
  EXPECT_EQ(Metrics(folder_ + "/whole"), Metrics(run));
  ExpectSameTensors(run, folder_ + "/whole");
  const auto audits = AuditCheckpoints(run, *World());
  ASSERT_TRUE(audits.ok()) << audits.status();
  ASSERT_EQ(audits->size(), 2u);
  for (const CheckpointAudit& audit : *audits) EXPECT_TRUE(audit.damage.empty());
}

TEST_F(ResumeTest, WithoutAnIntactCheckpointNothingChanges) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  const std::string run = folder_ + "/run";
  ASSERT_TRUE(Pretrain(Options("run"), mesh).ok());
  std::map<std::string, std::string> before;
  if (World()->rank() == 0) {
    FlipLastByte(LastFile(StepFolder(run, 12)));
    fs::remove(StepFolder(run, 8) + "/manifest.json");
  }
  World()->Barrier();
  // Two of three are damaged: the oldest will do.
  PretrainOptions options = Options("run");
  options.stop_at_step = 5;
  std::string said;
  ASSERT_EQ(ExitCodeOf(PretrainAndListen(options, mesh, &said)), ExitCode::kStopped);
  EXPECT_NE(said.find("resuming from " + StepFolder(run, 4)), std::string::npos) << said;
  World()->Barrier();
  if (World()->rank() == 0) {
    fs::remove_all(StepFolder(run, 5));
    fs::resize_file(LastFile(StepFolder(run, 4)), 100);
    before = Snapshot(run);
  }
  World()->Barrier();
  const absl::Status status = PretrainAndListen(Options("run"), mesh, &said);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
  EXPECT_NE(std::string(status.message()).find("no checkpoint of " + run + " is intact (3 tried)"),
            std::string::npos)
      << status;
  for (const int step : {4, 8, 12}) {
    const std::string warning = "warning: checkpoint " + StepFolder(run, step) + " is damaged";
    EXPECT_NE(said.find(warning), std::string::npos) << said;
  }
  const std::vector<std::string> messages = World()->AllGatherText(std::string(status.message()));
  for (const std::string& message : messages) EXPECT_EQ(message, messages[0]);
  if (World()->rank() == 0) {
    EXPECT_TRUE(before == Snapshot(run)) << "a file has changed";
  }
  // A path that is given takes no other one instead.
  for (const std::string& path : {run, StepFolder(run, 12)}) {
    EXPECT_EQ(ExitCodeOf(Evaluate({path, "", ""}, World(), 0).status()), ExitCode::kBadData);
  }
}

std::vector<std::string> CheckpointNames(const std::string& run_dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(run_dir + "/checkpoints")) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST_F(ResumeTest, KeepsTheNewestCheckpointsAndGoesOnFromThem) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  ASSERT_TRUE(Pretrain(Options("whole"), mesh).ok());
  EXPECT_EQ(CheckpointNames(folder_ + "/whole").size(), 3u);
  PretrainOptions options = Options("kept");
  options.config.mutable_checkpoint()->set_keep(2);
  options.stop_at_step = 6;
  ASSERT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kStopped);
  const std::vector<std::string> stopped = {"step_00000004", "step_00000006"};
  EXPECT_EQ(CheckpointNames(options.run_dir), stopped);
  options.stop_at_step = 0;
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  const std::vector<std::string> complete = {"step_00000008", "step_00000012"};
  EXPECT_EQ(CheckpointNames(options.run_dir), complete);
  World()->Barrier();
  // As a crash in the last save leaves it; the number to keep may change between processes.
  if (World()->rank() == 0) {
    fs::rename(options.run_dir + "/checkpoints/step_00000012",
               options.run_dir + "/checkpoints/step_00000012.tmp");
  }
  World()->Barrier();
  options.config.mutable_checkpoint()->set_keep(1);
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  World()->Barrier();
  EXPECT_EQ(CheckpointNames(options.run_dir), std::vector<std::string>{"step_00000012"});
  ExpectSameTensors(options.run_dir, folder_ + "/whole");
  World()->Barrier();
  // As a crash after the last save leaves it, in the middle of removing what it replaced.
  if (World()->rank() == 0)
    fs::create_directory(options.run_dir + "/checkpoints/step_00000008.tmp");
  World()->Barrier();
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  World()->Barrier();
  EXPECT_EQ(CheckpointNames(options.run_dir), std::vector<std::string>{"step_00000012"});
}

TEST_F(ResumeTest, TensorBoardShowsEachStepOnce) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  PretrainOptions options = Options("run");
  options.stop_at_step = 5;
  ASSERT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kStopped);
  options.stop_at_step = 0;
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  World()->Barrier();
  // Steps 9 to 12 once more, as after a crash; then a run that is complete, which adds no file.
  if (World()->rank() == 0) fs::remove_all(options.run_dir + "/checkpoints/step_00000012");
  World()->Barrier();
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  World()->Barrier();
  EXPECT_EQ(EventFiles(options.run_dir).size(), 3u);
  const auto shown = ShownPoints(options.run_dir);
  std::map<std::string, std::map<int64_t, float>> expected;
  std::ifstream in(options.run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    for (const char* name : {"loss", "grad_norm", "learning_rate", "tokens_per_second",
                             "expert_load_max_over_mean", "perplexity"}) {
      if (!json.contains(name)) continue;
      expected[json["kind"].get<std::string>() + "/" + name][json["step"].get<int64_t>()] =
          json[name].get<float>();
    }
  }
  EXPECT_EQ(expected.size(), 7u);
  for (const auto& [tag, points] : expected) EXPECT_EQ(shown.at(tag), points) << tag;
  EXPECT_EQ(expected.at("train/loss").size(), 12u);
  EXPECT_EQ(expected.at("validation/loss").size(), 4u);
}

TEST_F(ResumeTest, RefusesWhatWouldNotBeTheSameRun) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  PretrainOptions options = Options("run");
  options.stop_at_step = 4;
  ASSERT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kStopped);
  options.config.mutable_optimizer()->set_beta1(0.8);
  const absl::Status changed = Pretrain(options, mesh);
  EXPECT_EQ(ExitCodeOf(changed), ExitCode::kConfig);
  EXPECT_NE(std::string(changed.message()).find("optimizer.beta1"), std::string::npos) << changed;
  options = Options("run");
  options.resume = false;
  EXPECT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kUsage);
}

TEST_F(ResumeTest, RefusesOtherDataUnderTheSameName) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  PretrainOptions options = Options("run");
  options.stop_at_step = 4;
  ASSERT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kStopped);
  World()->Barrier();
  if (World()->rank() == 0) WriteTokens("more", 1000, 4);
  World()->Barrier();
  options.stop_at_step = 0;
  const absl::Status changed = Pretrain(options, mesh);
  EXPECT_EQ(ExitCodeOf(changed), ExitCode::kConfig);
  EXPECT_THAT(std::string(changed.message()), testing::HasSubstr("give the same token files"));
}

TEST_F(ResumeTest, EvaluatesAlikeAtEveryLayout) {
  ASSERT_TRUE(Pretrain(Options("run"), ProcessMesh::Create(World(), World()->size())).ok());
  const EvaluateOptions options = {folder_ + "/run", "", ""};
  const auto alone = Evaluate(options, NewSelfCommunicator("world"), 0);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->step, 12);
  EXPECT_EQ(alone->tokens, 300 + 100);  // the last tenth of each file
  for (int degree = 1; degree <= World()->size(); degree *= 2) {
    const auto together = Evaluate(options, World(), degree);
    ASSERT_TRUE(together.ok()) << together.status();
    EXPECT_NEAR(together->loss, alone->loss, 1e-6) << "degree " << degree;
  }
  const auto wide = Evaluate({folder_ + "/run", folder_ + "/tokens", "float64"}, World(), 0);
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_EQ(wide->tokens, 2999);  // the first token has nothing before it
}

TEST_F(ResumeTest, GoesOnAtAnotherLayout) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  PretrainOptions options = Options("whole", RuntimeConfig::float64);
  ASSERT_TRUE(Pretrain(options, mesh).ok());
  options.run_dir = folder_ + "/moved";
  options.stop_at_step = 5;
  ASSERT_EQ(ExitCodeOf(Pretrain(options, mesh)), ExitCode::kStopped);
  options.stop_at_step = 0;
  ASSERT_TRUE(Pretrain(options, ProcessMesh::Create(World(), 1)).ok());
  EXPECT_LE(LargestError(StoredTensors(folder_ + "/moved"), StoredTensors(folder_ + "/whole")),
            1e-8);
}

TEST_F(ResumeTest, GeneratesTheSameTextAtEveryLayout) {
  ASSERT_TRUE(Pretrain(Options("run", RuntimeConfig::float64),
                       ProcessMesh::Create(World(), World()->size()))
                  .ok());
  GenerateOptions options;
  options.checkpoint = folder_ + "/run";
  options.prompt = "To";
  // More than three times the sequence length, so that the window moves on.
  options.max_tokens = 30;
  for (const double temperature : {0.0, 0.9}) {
    options.temperature = temperature;
    options.top_p = 0.95;
    const auto alone = Generate(options, NewSelfCommunicator("world"), 0);
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_FALSE(alone->empty());
    for (int degree = 1; degree <= World()->size(); degree *= 2) {
      const auto together = Generate(options, World(), degree);
      ASSERT_TRUE(together.ok()) << together.status();
      EXPECT_EQ(*together, *alone);
    }
  }
}

}  // namespace
}  // namespace hypermoe
