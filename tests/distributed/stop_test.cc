// A run that is asked to stop in any phase stops there, saved, and goes on as if it never had been.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "launch/stop_signals.h"
#include "parallel/process_mesh.h"
#include "runtime/agreement.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_run.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

int64_t NumLines(const std::string& run_dir) {
  std::ifstream in(run_dir + "/metrics.jsonl");
  int64_t lines = 0;
  for (std::string line; std::getline(in, line);) ++lines;
  return lines;
}

std::set<std::string> Checkpoints(const std::string& run_dir) {
  std::set<std::string> names;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(run_dir + "/checkpoints", none)) {
    const std::string name = entry.path().filename();
    if (name.rfind("step_", 0) == 0) names.insert(name);
  }
  return names;
}

// Whether a collective that has just been made is the moment to send the signal.
using Moment = std::function<bool(const CollectiveEvent&)>;

// The first exchange of routed tokens with so many lines in metrics.jsonl: in the forward pass of
// the step, or in the evaluation, that comes after them.
Moment ExchangeAfterLines(const std::string& run_dir, int64_t lines) {
  return [=](const CollectiveEvent& event) {
    return event.kind == Collective::kAllToAllCounts && NumLines(run_dir) == lines;
  };
}

struct Outcome {
  absl::Status status;
  int64_t exchanges = -1;  // made after the signal; -1: the moment never came
};

class StopTest : public TinyRunTest {
 protected:
  static void SetUpTestSuite() { whole_ = new SharedFolder; }
  static void TearDownTestSuite() { delete std::exchange(whole_, nullptr); }
  void SetUp() override {
    TinyRunTest::SetUp();
    if (fs::exists(Whole())) return;
    World()->Barrier();
    PretrainOptions options = Options("whole");
    options.run_dir = Whole();
    ASSERT_TRUE(Pretrain(options, Mesh()).ok());
  }
  void TearDown() override {
    World()->set_observer({});
    for (const int number : {SIGUSR1, SIGTERM}) signal(number, SIG_DFL);
  }

  // The run that is never stopped.
  static std::string Whole() { return *whole_ / "run"; }
  ProcessMesh Mesh() const { return ProcessMesh::Create(World(), World()->size()); }

  // The run "stopped", of which the last rank alone gets SIGUSR1. It does not hear the first
  // `deaf_polls` answers after it.
  // `asynchronous`: checkpoints are written beside training; else, so that a collective is made
  // while their files are being written, while it waits.
  Outcome StopAt(const Moment& moment, int64_t deaf_polls = 0, bool asynchronous = false) {
    const ProcessMesh mesh = Mesh();
    const bool last = World()->rank() == World()->size() - 1;
    int64_t exchanges = -1;
    const CollectiveObserver observe = [&](const CollectiveEvent& event) {
      if (!last) return;
      if (exchanges < 0 && moment(event)) {
        exchanges = 0;
        raise(SIGUSR1);
      } else if (exchanges >= 0 && event.kind == Collective::kAllToAllCounts && !event.goes_on) {
        ++exchanges;
      }
    };
    World()->set_observer(observe);
    mesh.expert->set_observer(observe);
    TakeStopSignals();
    PretrainOptions options = Options("stopped");
    options.config.mutable_checkpoint()->set_asynchronous(asynchronous);
    options.stop_sources = {[deaf_polls]() mutable {
      const std::string signal = StopSignal();
      return signal.empty() || deaf_polls-- > 0 ? std::string() : signal;
    }};
    Outcome outcome;
    outcome.status = Pretrain(options, mesh);
    World()->set_observer({});
    for (outcome.exchanges = 0; AnyRank(*World(), outcome.exchanges < exchanges);)
      ++outcome.exchanges;
    return outcome;
  }

  void ExpectStopped(const Outcome& outcome, const std::string& where) {
    EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kStopped) << outcome.status;
    const std::string message(outcome.status.message());
    EXPECT_NE(message.find("stopped " + where + " as SIGUSR1 asked"), std::string::npos) << message;
    World()->Barrier();
  }

  // Goes on to the end, and compares with the run that was never stopped.
  void ExpectResumesExactly() {
    const absl::Status status = Pretrain(Options("stopped"), Mesh());
    ASSERT_TRUE(status.ok()) << status;
    World()->Barrier();
    ExpectSameTensors(stopped_, Whole());
    EXPECT_EQ(Metrics(stopped_), Metrics(Whole()));
    World()->Barrier();
  }

  static inline SharedFolder* whole_ = nullptr;
  const std::string stopped_ = folder_ + "/stopped";
  // Two micro-batches of two sparse layers a step; an evaluation takes one pass after the other.
  static constexpr int64_t kExchangesAStep = 4, kExchangesAPass = 2;
};

TEST_F(StopTest, WhileTheDataIsOpened) {
  ExpectStopped(
      StopAt([](const CollectiveEvent& event) { return event.kind == Collective::kAllGather; }),
      "before the first step");
  EXPECT_EQ(Checkpoints(stopped_), std::set<std::string>{});
  ExpectResumesExactly();
}

TEST_F(StopTest, WhileACheckpointIsLoaded) {
  PretrainOptions options = Options("stopped");
  options.stop_at_step = 5;
  ASSERT_EQ(ExitCodeOf(Pretrain(options, Mesh())), ExitCode::kStopped);
  // By then the data is open, and its poll over.
  int64_t reductions = 0;
  ExpectStopped(StopAt([&](const CollectiveEvent& event) {
                  reductions += event.kind == Collective::kAllReduce ? 1 : 0;
                  return reductions >= 1 && event.kind == Collective::kAllGather;
                }),
                "before a step of its own");
  EXPECT_EQ(Checkpoints(stopped_), (std::set<std::string>{"step_00000004", "step_00000005"}));
  ExpectResumesExactly();
}

TEST_F(StopTest, InTheForwardPass) {
  // Four steps and one validation are done.
  const Outcome outcome = StopAt(ExchangeAfterLines(stopped_, 5));
  ExpectStopped(outcome, "after step 5");
  EXPECT_EQ(outcome.exchanges, kExchangesAStep - 1);
  EXPECT_EQ(Checkpoints(stopped_), (std::set<std::string>{"step_00000004", "step_00000005"}));
  ExpectResumesExactly();
}

// The checkpoint of step 4 cannot have been published before the figures of step 5 are shared.
TEST_F(StopTest, WhileACheckpointIsSavedBesideTraining) {
  const Outcome outcome =
      StopAt(ExchangeAfterLines(stopped_, 5), /*deaf_polls=*/0, /*asynchronous=*/true);
  ExpectStopped(outcome, "after step 5");
  EXPECT_EQ(Checkpoints(stopped_), (std::set<std::string>{"step_00000004", "step_00000005"}));
  ExpectResumesExactly();
}

TEST_F(StopTest, InAnEvaluation) {
  const Outcome outcome = StopAt(ExchangeAfterLines(stopped_, 3));
  ExpectStopped(outcome, "after step 3");
  EXPECT_EQ(outcome.exchanges, kExchangesAPass - 1);
  EXPECT_EQ(Checkpoints(stopped_), std::set<std::string>{"step_00000003"});
  // Stopped before it could be made up for, too.
  ExpectStopped(StopAt(ExchangeAfterLines(stopped_, 3)), "before a step of its own");
  ExpectResumesExactly();
}

// What the test above would find if evaluations did not ask: they would go on to their end.
TEST_F(StopTest, AnEvaluationThatDoesNotAskIsFoundOut) {
  const Outcome outcome = StopAt(ExchangeAfterLines(stopped_, 3), /*deaf_polls=*/4);
  EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kStopped);
  EXPECT_GT(outcome.exchanges, kExchangesAPass - 1);
}

TEST_F(StopTest, InTheStepBeforeAnEvaluation) {
  // Five steps, one validation; step 6 has one.
  const Outcome outcome = StopAt(ExchangeAfterLines(stopped_, 6));
  ExpectStopped(outcome, "after step 6");
  EXPECT_EQ(outcome.exchanges, kExchangesAStep - 1);  // no pass of the validation
  ExpectResumesExactly();
}

TEST_F(StopTest, InTheLastEvaluation) {
  const Outcome outcome = StopAt(ExchangeAfterLines(stopped_, 15));
  ExpectStopped(outcome, "after step 12");
  EXPECT_EQ(outcome.exchanges, kExchangesAPass - 1);
  ExpectResumesExactly();
}

TEST_F(StopTest, WhileACheckpointIsSaved) {
  const Outcome outcome = StopAt([this](const CollectiveEvent&) {
    return fs::exists(stopped_ + "/checkpoints/step_00000004.tmp");
  });
  ExpectStopped(outcome, "after step 4");
  EXPECT_EQ(outcome.exchanges, 0);
  EXPECT_EQ(Checkpoints(stopped_), std::set<std::string>{"step_00000004"});
  ExpectResumesExactly();
}

// The file is rank 0's to see; it is obeyed once, and those who would start the run again are told.
TEST_F(StopTest, AStopFileStopsAndIsGone) {
  for (const bool before_start : {false, true}) {
    const ProcessMesh mesh = Mesh();
    PretrainOptions options = Options("stopped");
    const auto ask = [&] { std::ofstream(stopped_ + "/stop").flush(); };
    if (World()->rank() == 0) {
      options.stop_sources = {StopFile(stopped_)};
      if (before_start) ask();
      bool written = before_start;
      mesh.expert->set_observer([=, this](const CollectiveEvent&) mutable {
        if (!written && NumLines(stopped_) == 2) ask(), written = true;
      });
    }
    const absl::Status status = Pretrain(options, mesh);
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kStopped);
    EXPECT_NE(std::string(status.message()).find(stopped_ + "/stop asked"), std::string::npos)
        << status;
    World()->Barrier();
    EXPECT_EQ(Checkpoints(stopped_), std::set<std::string>{"step_00000003"});
    EXPECT_FALSE(fs::exists(stopped_ + "/stop"));
    EXPECT_TRUE(fs::exists(stopped_ + "/stopped"));
    World()->Barrier();
  }
  ExpectResumesExactly();
  EXPECT_FALSE(fs::exists(stopped_ + "/stopped"));
}

// A pass of an evaluation that can be stopped costs one small all-reduce; another evaluation none.
TEST(EvaluationTest, AsksOnceAPass) {
  const RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32);
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  Trainer trainer(config, mesh, TinyRows(config));
  const ValidationWindows windows({TinyTokens(300)[0].tokens}, config.model().sequence_length());
  const int64_t rows = config.train().batch_size();
  const int64_t passes = (windows.size() + rows - 1) / rows;
  const auto reductions = [&](const std::function<bool()>& stop) {
    const int64_t before = World()->traffic(Collective::kAllReduce).calls;
    EXPECT_EQ(trainer.Evaluate(windows, 0, stop), trainer.Evaluate(windows, 0));
    return World()->traffic(Collective::kAllReduce).calls - before;
  };
  EXPECT_GT(passes, 2);
  EXPECT_EQ(reductions({}), 2);  // of the sums, in each evaluation
  EXPECT_EQ(reductions([] { return false; }), 2 + passes);
  EXPECT_EQ(trainer.Evaluate(windows, 0, [] { return World()->rank() == 0; }), std::nullopt);
}

}  // namespace
}  // namespace hypermoe
