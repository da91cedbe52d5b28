// What `hypermoe inspect` measures is the same at every layout, and what it should be.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/evaluator.h"
#include "runtime/inspection.h"
#include "runtime/model_transfer.h"
#include "tests/support/layouts.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_token_file.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Capacity by row, so that experts drop choices.
json Moe(int top_k) {
  return TinyMoe({{"top_k", top_k},
                  {"renormalize", false},
                  {"capacity", {{"mode", "fixed_per_row"}, {"value", 2}}}});
}

class MeasureTest : public testing::Test {
 protected:
  MeasureTest() { WriteTinyTokens(); }

  // Ids below the vocabulary of made models.
  void WriteTinyTokens() {
    if (World()->rank() == 0) {
      const auto writer = TokenFileWriter::Create(folder_ / "tokens", 11);
      std::vector<int32_t> ids;
      for (uint64_t i = 0; i < 203; ++i)
        ids.push_back(static_cast<int32_t>(UniformAt({4, 2}, i) * 11));
      EXPECT_TRUE(writer.ok() && (*writer)->Append(ids).ok() && (*writer)->EndDocument().ok() &&
                  (*writer)->Finish().ok());
    }
    World()->Barrier();
  }

  // A run with the made model of `config`, random in float64.
  std::string MakeRun(const std::string& name, const json& config, const std::string& execution,
                      const std::map<std::string, double>& factors = {},
                      const std::string& change = "runtime.seed=1") {
    if (World()->rank() == 0) {
      auto tensors = RandomTensors(config, at::kDouble);
      for (const auto& [tensor, factor] : factors) tensors.at(tensor).fill_(factor);
      WriteMadeFolder(folder_ / (name + "_model"), config, tensors);
    }
    World()->Barrier();
    const auto imported =
        ImportModel({folder_ / (name + "_model"),
                     folder_ / name,
                     {"hyper.execution=" + execution, "train.batch_size=8", change},
                     1},
                    *World());
    EXPECT_TRUE(imported.ok()) << imported.status();
    return folder_ / name;
  }

  MeasuredUsage Measure(const std::string& run, std::shared_ptr<Communicator> world, int degree) {
    auto loaded = LoadModel(run, "float64", world, degree);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    EvaluateOptions options;
    options.checkpoint = run;
    options.data = folder_ / "tokens";
    return MeasureUsage(*loaded, *OpenEvaluationWindows(options, loaded->info).value(), 0);
  }

  SharedFolder folder_;
};

std::shared_ptr<Communicator> Alone() {
  return std::shared_ptr<Communicator>(NewSelfCommunicator("world"));
}

void ExpectSame(const MeasuredUsage& actual, const MeasuredUsage& expected) {
  EXPECT_EQ(actual.windows, expected.windows);
  EXPECT_EQ(actual.tokens_LN.values, expected.tokens_LN.values);
  EXPECT_EQ(actual.dropped_LN.values, expected.dropped_LN.values);
  ASSERT_EQ(actual.together_L.size(), expected.together_L.size());
  for (size_t i = 0; i < actual.together_L.size(); ++i)
    EXPECT_EQ(actual.together_L[i].values, expected.together_L[i].values);
  ASSERT_EQ(actual.hyper_shares_L.size(), expected.hyper_shares_L.size());
  for (size_t i = 0; i < actual.hyper_shares_L.size(); ++i)
    EXPECT_NEAR(actual.hyper_shares_L[i] / expected.hyper_shares_L[i], 1, 1e-10);
}

TEST_F(MeasureTest, TheSameAtEveryLayoutAndByEveryExecution) {
  struct Case {
    const char* name;
    json config;
    std::vector<const char*> executions;
    std::string change = "runtime.seed=1";
  };
  json encoder_decoder = TinySwitch({{"vocab_size", 384}, {"eos_token_id", 256}});
  encoder_decoder.update({{"expert_capacity", 2}, {"hypermoe", TinyHyper()}});
  const std::vector<Case> cases = {
      {"k1", TinyConfig(Moe(1), TinyHyper()), {"per_token", "source", "owner", "bilinear"}},
      {"k2", TinyConfig(Moe(2), TinyHyper({{"scale", "gate"}})), {"per_token", "source"}},
      {"skip", TinyConfig(Moe(1), TinyHyper({{"on_dropped", "skip"}})), {"source", "owner"}},
      {"switch", encoder_decoder, {"source"}, "model.sequence_length=16"}};
  for (const Case& c : cases) {
    std::optional<MeasuredUsage> expected;
    for (const char* execution : c.executions) {
      const std::string run =
          MakeRun(std::string(c.name) + execution, c.config, execution, {}, c.change);
      if (!expected.has_value()) expected = Measure(run, Alone(), 1);
      EXPECT_EQ(expected->hyper_shares_L.size(), 2u);
      for (const int degree : Degrees()) {
        SCOPED_TRACE(std::string(c.name) + " " + execution + " at degree " +
                     std::to_string(degree));
        ExpectSame(Measure(run, World(), degree), *expected);
      }
    }
  }
}

// Against the routing decisions of each window by itself.
TEST_F(MeasureTest, CountsWhatRoutersChoose) {
  const std::string run = MakeRun("count", TinyConfig(Moe(2), TinyHyper()), "source");
  const MeasuredUsage usage = Measure(run, World(), 0);
  const at::NoGradGuard no_grad;
  auto loaded = LoadModel(run, "float64", Alone(), 1);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EvaluateOptions options;
  options.data = folder_ / "tokens";
  const auto windows = OpenEvaluationWindows(options, loaded->info);
  ASSERT_TRUE(windows.ok()) << windows.status();
  EXPECT_EQ(usage.windows, (*windows)->size());
  Matrix tokens(2, 5), dropped(2, 5);
  std::vector<Matrix> together(2, Matrix(5, 5));
  for (int64_t window = 0; window < (*windows)->size(); ++window) {
    const ModelOutput output = loaded->model->Forward(
        (*windows)->Rows({window, window + 1}, {window, window + 1}, 1), ForwardMode{});
    for (int64_t layer = 0; layer < 2; ++layer) {
      const RoutingResult& routing = output.routing[static_cast<size_t>(layer)];
      for (int64_t token = 0; token < routing.expert_ids_TK.size(0); ++token) {
        const auto a = routing.expert_ids_TK[token][0].item<int64_t>(),
                   b = routing.expert_ids_TK[token][1].item<int64_t>();
        for (const int64_t expert : {a, b}) {
          tokens(layer, expert) += 1;
          together[static_cast<size_t>(layer)](expert, expert) += 1;
        }
        together[static_cast<size_t>(layer)](a, b) += 1;
        together[static_cast<size_t>(layer)](b, a) += 1;
        for (int64_t k = 0; k < 2; ++k) {
          if (!routing.taken_TK[token][k].item<bool>())
            dropped(layer, routing.expert_ids_TK[token][k].item<int64_t>()) += 1;
        }
      }
    }
  }
  EXPECT_EQ(usage.tokens_LN.values, tokens.values);
  EXPECT_EQ(usage.dropped_LN.values, dropped.values);
  EXPECT_GT(*std::max_element(dropped.values.begin(), dropped.values.end()), 0);
  for (size_t layer = 0; layer < 2; ++layer)
    EXPECT_EQ(usage.together_L[layer].values, together[layer].values);
}

// In the last layer nothing that experts see depends on its own HyperExperts.
TEST_F(MeasureTest, TheShareGrowsAsHyperExpertsDo) {
  const json config = TinyConfig(Moe(1), TinyHyper({{"scale", "learned"}}));
  std::vector<double> shares;
  for (const double factor : {0.0, 1.0, 3.0}) {
    const std::string run = MakeRun("scaled" + std::to_string(static_cast<int>(factor)), config,
                                    "source", {{"hypermoe.scale.2", factor}});
    shares.push_back(Measure(run, World(), 0).hyper_shares_L.at(1));
  }
  EXPECT_EQ(shares[0], 0);
  EXPECT_GT(shares[1], 0);
  EXPECT_NEAR(shares[2] / shares[1], 3, 1e-12);
}

TEST_F(MeasureTest, ShareIsNotMadeUpWhereItIsNotKnown) {
  const std::string owner = MakeRun("owner2", TinyConfig(Moe(2), TinyHyper()), "owner");
  EXPECT_TRUE(Measure(owner, World(), 0).hyper_shares_L.empty());
  const std::string plain = MakeRun("plain", TinyConfig(Moe(1)), "auto");
  EXPECT_TRUE(Measure(plain, World(), 0).hyper_shares_L.empty());
}

TEST_F(MeasureTest, TheWholeReportIsTheSameBytesTwice) {
  const std::string run = MakeRun("whole", TinyConfig(Moe(2), TinyHyper()), "source");
  InspectOptions options;
  options.path = run;
  options.data = folder_ / "tokens";
  std::string figures;
  for (const char* output : {"a", "b"}) {
    options.output = folder_ / output;
    const auto inspected = Inspect(options, World(), 0);
    ASSERT_TRUE(inspected.ok()) << inspected.status();
    figures = *inspected;
  }
  if (World()->rank() != 0) {
    EXPECT_EQ(figures, "");
    return World()->Barrier();
  }
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "a")) {
    const std::string name = entry.path().filename();
    EXPECT_EQ(ReadFile(entry.path()), ReadFile(folder_ / ("b/" + name))) << name;
    ++files;
  }
  EXPECT_GT(files, 20);
  const json line = json::parse(figures);
  EXPECT_EQ(line["layers"].size(), 2u);
  EXPECT_EQ(line["measured"]["windows"], 26);
  EXPECT_FALSE(line.contains("recorded"));
  World()->Barrier();
}

TEST_F(MeasureTest, ABakedModelSaysThatItsEmbeddingsAreGone) {
  MakeRun("full", TinyConfig(Moe(1), TinyHyper()), "source");
  ExportOptions bake = {folder_ / "full", folder_ / "baked"};
  bake.bake = true;
  ASSERT_TRUE(ExportModel(bake, *World()).ok());
  InspectOptions options;
  options.path = folder_ / "baked";
  const auto figures = Inspect(options, World(), 0);
  ASSERT_TRUE(figures.ok()) << figures.status();
  if (World()->rank() == 0) {
    EXPECT_TRUE(json::parse(*figures)["layers"].empty());
    EXPECT_THAT(ReadFile(folder_ / "baked/inspect/index.html"), HasSubstr("the model is baked"));
  }
  World()->Barrier();
}

}  // namespace
}  // namespace hypermoe
