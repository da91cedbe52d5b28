// A baked model computes what the model with its hypernetwork does, at every layout and by both
// executions.
#include "runtime/bake.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/loaded_model.h"
#include "runtime/model_transfer.h"
#include "tests/support/layouts.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Logits of two rows of this rank's own, in float64.
at::Tensor Logits(const std::string& path, int degree) {
  const at::NoGradGuard no_grad;
  const auto loaded = LoadModel(path, "float64", World(), degree);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  if (!loaded.ok()) return {};
  Batch batch;
  const int64_t first = 2 * World()->rank();
  batch.row_ids_B = at::arange(first, first + 2, at::kLong);
  batch.input_ids_BS = (at::arange(16, at::kLong) * 7 + first).remainder(11).view({2, 8});
  return loaded->model->Forward(batch, ForwardMode()).logits_TV;
}

std::vector<json> Variants() {
  return {json::object(),
          {{"condition", "selected"}, {"agg", "sum"}, {"emb_scope", "model"}},
          {{"gen_bias", true}, {"scale", "learned"}, {"k_norm", "layernorm"}, {"share", "layer"}},
          {{"gen_bias", true}, {"scale", "gate"}, {"lin_bias", false}, {"on_dropped", "skip"}}};
}

TEST(BakeTest, LogitsStayAndTheHypernetworkGoes) {
  const SharedFolder scratch;
  const json moe = TinyMoe({{"capacity", {{"mode", "fixed_per_row"}, {"value", 2}}}});
  int count = 0;
  for (const json& variant : Variants()) {
    SCOPED_TRACE(variant.dump());
    const std::string name = scratch / absl::StrCat(count++);
    const json config = TinyConfig(moe, TinyHyper(variant));
    if (World()->rank() == 0) WriteMadeFolder(name, config, RandomTensors(config, at::kFloat));
    World()->Barrier();
    ExportOptions bake = {name, name + "_baked"};
    bake.bake = true;
    const absl::Status baked = ExportModel(bake, *World());
    ASSERT_TRUE(baked.ok()) << baked;
    for (const auto& [tensor, value] : TensorsOfFolder(name + "_baked")) {
      EXPECT_TRUE(!absl::StartsWith(tensor, "hypermoe.") ||
                  absl::StartsWith(tensor, "hypermoe.baked."))
          << tensor;
    }
    for (const char* execution : {"source", "owner"}) {
      const std::string set = absl::StrCat("hyper.execution=", execution);
      for (const std::string& path : {name, name + "_baked"}) {
        const auto imported = ImportModel({path, path + execution, {set}, 1}, *World());
        ASSERT_TRUE(imported.ok()) << imported.status();
      }
      for (const int degree : Degrees()) {
        const at::Tensor expected = Logits(name + execution, degree),
                         actual = Logits(name + "_baked" + execution, degree);
        EXPECT_LT((actual - expected).abs().max().item<double>(),
                  1e-12 * expected.abs().max().item<double>())
            << execution << " at degree " << degree;
      }
    }
  }
}

TEST(BakeTest, ABakedModelComesOutOfARunAsItWent) {
  const SharedFolder scratch;
  const json config = TinyConfig(TinyMoe(), TinyHyper({{"scale", "learned"}}));
  if (World()->rank() == 0)
    WriteMadeFolder(scratch / "in", config, RandomTensors(config, at::kFloat));
  World()->Barrier();
  ExportOptions bake = {scratch / "in", scratch / "baked"};
  bake.bake = true;
  ASSERT_TRUE(ExportModel(bake, *World()).ok());
  ASSERT_TRUE(ImportModel({scratch / "baked", scratch / "run", {}, 1}, *World()).ok());
  ASSERT_TRUE(ExportModel({scratch / "run", scratch / "out"}, *World()).ok());
  if (World()->rank() == 0) ExpectSameFolders(scratch / "out", scratch / "baked");
  // Not twice.
  bake = {scratch / "run", scratch / "never"};
  bake.bake = true;
  const absl::Status twice = ExportModel(bake, *World());
  EXPECT_EQ(ExitCodeOf(twice), ExitCode::kConfig);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("baked already"));
}

TEST(BakeTest, ModelsWithoutAHyperExpertForEachExpertAreRefused) {
  const SharedFolder scratch;
  const std::vector<std::pair<json, const char*>> cases = {
      {TinyConfig(TinyMoe()), "model.kind is moe"},
      {TinyConfig(TinyMoe({{"top_k", 2}}), TinyHyper()), "model.top_k is 2"},
      {TinyConfig(TinyMoe(), TinyHyper({{"condition", "hidden"}})), "each token has its own"},
      {TinyConfig(TinyMoe(), TinyHyper({{"z", "one_minus_prob"}})), "each token has its own"}};
  int count = 0;
  for (const auto& [config, reason] : cases) {
    const std::string name = scratch / absl::StrCat(count++);
    if (World()->rank() == 0) WriteMadeFolder(name, config, RandomTensors(config, at::kFloat));
    World()->Barrier();
    ExportOptions bake = {name, scratch / "never"};
    bake.bake = true;
    const absl::Status status = ExportModel(bake, *World());
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }
}

}  // namespace
}  // namespace hypermoe
