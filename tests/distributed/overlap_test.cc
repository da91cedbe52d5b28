// What is computed while rows travel: the products of HyperExperts between the begin and the end of
// the dispatch, and in backward of that of the gradients. Over MPI, which moves large rows inside
// its calls only, this is the order of the program and no gain yet.
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <functional>
#include <regex>
#include <string>

#include "kernels/host_read.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

// "(" an exchange of rows begins, ")" this rank waits for it, "h" a product of matrices between the
// two. Nothing but HyperExperts has one there.
std::string log;
bool under_way = false;

std::unique_ptr<at::ObserverContext> NoteProduct(const at::RecordFunction& call) {
  const std::string name = call.name();
  if (under_way && (name == "aten::mm" || name == "aten::addmm")) log += 'h';
  return nullptr;
}

// The log of what `action` does on this rank.
std::string LogOf(const ProcessMesh& mesh, const std::function<void()>& action) {
  log.clear();
  mesh.expert->set_observer([](const CollectiveEvent& event) {
    if (event.kind != Collective::kAllToAll) return;
    under_way = !event.goes_on;
    log += under_way ? '(' : ')';
  });
  const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(NoteProduct));
  action();
  at::removeCallback(handle);
  mesh.expert->set_observer({});
  return log;
}

// In float64, whose small products LibTorch makes.
RunConfig HyperConfigOf(HyperConfig::Execution execution) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float64);
  config.mutable_hyper()->set_execution(execution);
  return config;
}

std::string LogOfStep(const RunConfig& config, const ProcessMesh& mesh) {
  Trainer trainer(config, mesh, TinyRows(config));
  Randomize(trainer);
  return LogOf(mesh, [&] { trainer.ComputeGradients(3); });
}

// Two sparse layers forward, then backward: dispatch and combine, and the gradients of combine and
// of dispatch. `h`: what of products there is.
std::string AtSource(const std::string& h) {
  const std::string there = "\\(" + h + "\\)", back = "\\(\\)";
  return "(" + there + back + "){2}(" + back + there + "){2}";
}

struct Case {
  const char* name;
  std::function<void(RunConfig*)> change;
};
const Case kCases[] = {
    {"one choice", [](RunConfig*) {}},
    {"two choices", [](RunConfig* config) { config->mutable_model()->set_top_k(2); }},
    {"capacity", LimitCapacity},
    {"scaled by gates",
     [](RunConfig* config) { config->mutable_hyper()->set_scale(HyperConfig::gate); }},
    {"three rows", [](RunConfig* config) { config->mutable_train()->set_batch_size(3); }}};

TEST(OverlapTest, HyperExpertsWorkWhileRowsTravelBothWays) {
  for (const Case& test_case : kCases) {
    RunConfig config = HyperConfigOf(HyperConfig::source);
    test_case.change(&config);
    for (const int degree : Degrees()) {
      if (degree == 1) continue;  // nothing travels
      const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
      // A rank without rows exchanges as the others do.
      const bool rows = World()->rank() < config.train().batch_size();
      const std::string events = LogOfStep(config, mesh);
      EXPECT_TRUE(std::regex_match(events, std::regex(AtSource(rows ? "h+" : "h*"))))
          << test_case.name << ", degree " << degree << ": " << events;
    }
  }
}

// Recomputed, rows do not travel again, but their gradients do.
TEST(OverlapTest, HoldsWithRecomputation) {
  RunConfig config = HyperConfigOf(HyperConfig::source);
  config.mutable_train()->set_recompute(TrainConfig::blocks);
  for (const int degree : Degrees()) {
    if (degree == 1) continue;
    const std::string events = LogOfStep(config, ProcessMesh::Create(World(), degree));
    EXPECT_TRUE(std::regex_match(events, std::regex(AtSource("h+"))))
        << "degree " << degree << ": " << events;
  }
}

TEST(OverlapTest, HoldsInEvaluation) {
  const RunConfig config = HyperConfigOf(HyperConfig::source);
  const ValidationWindows windows({TinyTokens(500)[0].tokens}, config.model().sequence_length());
  for (const int degree : Degrees()) {
    if (degree == 1) continue;
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer trainer(config, mesh, TinyRows(config));
    const std::string events = LogOf(mesh, [&] { trainer.Evaluate(windows, 0); });
    EXPECT_TRUE(std::regex_match(events, std::regex("(\\(h*\\)\\(\\))+"))) << events;
    EXPECT_NE(events.find('h'), std::string::npos);
  }
}

// The log itself: at the owner HyperExperts wait for their rows, and a plain mixture has none.
TEST(OverlapTest, TheLogSeesWhatDoesNotOverlap) {
  for (const RunConfig& config : {HyperConfigOf(HyperConfig::owner),
                                  TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float64)}) {
    for (const int degree : Degrees()) {
      const std::string events = LogOfStep(config, ProcessMesh::Create(World(), degree));
      EXPECT_EQ(events, degree > 1 ? "()()()()()()()()" : "");
    }
  }
}

// With one choice a token the host reads the counts of a layer's plan by HostRead and nothing else
// by it, with a capacity too.
TEST(HostReadTest, ALayerReadsItsCountsOnce) {
  RunConfig limited = HyperConfigOf(HyperConfig::source);
  LimitCapacity(&limited);
  for (const RunConfig& config :
       {HyperConfigOf(HyperConfig::source), HyperConfigOf(HyperConfig::owner), limited}) {
    for (const int degree : Degrees()) {
      Trainer trainer(config, ProcessMesh::Create(World(), degree), TinyRows(config));
      const int64_t before = HostRead::count();
      trainer.ComputeGradients(3);
      EXPECT_EQ(HostRead::count() - before, 2);
    }
  }
}

}  // namespace
}  // namespace hypermoe
