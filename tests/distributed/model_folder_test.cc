// Model folders at every layout: what goes in at one comes out at any other, and each expert is the
// same one everywhere.
#include "runtime/model_folder.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/agreement.h"
#include "runtime/loaded_model.h"
#include "runtime/model_transfer.h"
#include "tests/support/layouts.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

// 5 experts on 4 ranks: 2, 1, 1, 1.
json Config() { return TinyConfig(TinyMoe()); }

double ExpertTag(int64_t block, int64_t expert) {
  return static_cast<double>(100 * block + expert + 1);
}

// Every element of expert e in block l is ExpertTag(l, e). By rank 0, for all.
void MakeTaggedFolder(const std::string& folder) {
  if (World()->rank() == 0) {
    auto tensors = MadeTensors(Config(), at::kFloat);
    for (const int64_t block : {0, 2}) {
      for (int64_t expert = 0; expert < 5; ++expert) {
        for (const char* part : {"c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"}) {
          at::Tensor& tensor =
              tensors.at(absl::StrCat("h.", block, ".mlp.experts.expert_", expert, ".", part));
          tensor = at::full(tensor.sizes(), ExpertTag(block, expert), tensor.options());
        }
      }
    }
    WriteMadeFolder(folder, Config(), tensors);
  }
  World()->Barrier();
}

// Experts of this rank whose weights are not those of their id.
std::vector<std::string> WrongExperts(const LoadedModel& loaded) {
  std::vector<std::string> wrong;
  for (const FlatBuffer& buffer : loaded.buffers) {
    if (buffer.group() != ParameterGroup::kExpert) continue;
    for (size_t i = 0; i < buffer.parameters().size(); ++i) {
      for (const NamedTensor& view :
           GlobalViews(*buffer.parameters()[i], buffer.View(buffer.values(), i))) {
        int block = -1, expert = -1;
        EXPECT_EQ(std::sscanf(view.name.c_str(), "h.%d.mlp.experts.expert_%d.", &block, &expert),
                  2);
        if (!at::equal(view.tensor, at::full(view.tensor.sizes(), ExpertTag(block, expert),
                                             view.tensor.options()))) {
          wrong.push_back(view.name);
        }
      }
    }
  }
  return wrong;
}

TEST(ModelFolderLayoutTest, ImportedAtOneLayoutExportedAtAnyOther) {
  const SharedFolder scratch;
  MakeTaggedFolder(scratch / "in");
  for (const int degree : Degrees()) {
    const std::string run = scratch / absl::StrCat("run", degree);
    const auto imported = ImportModel(
        {scratch / "in", run, {absl::StrCat("mesh.expert_parallel=", degree)}, 1}, *World());
    ASSERT_TRUE(imported.ok()) << imported.status();
    for (const int64_t max_shard : {int64_t{5'000'000'000}, int64_t{1000}}) {
      const std::string output = scratch / absl::StrCat("out", degree, "_", max_shard);
      const absl::Status exported = ExportModel({run, output, max_shard}, *World());
      ASSERT_TRUE(exported.ok()) << exported;
      if (World()->rank() == 0) ExpectSameFolders(output, scratch / "in");
    }
    World()->Barrier();
    for (const int other : Degrees()) {
      for (const std::string& path : {run, scratch / "in"}) {
        const auto loaded = LoadModel(path, "", World(), other);
        ASSERT_TRUE(loaded.ok()) << loaded.status();
        EXPECT_THAT(WrongExperts(*loaded), testing::IsEmpty()) << path << " at degree " << other;
      }
    }
  }
}

// A run on fewer ranks and one on all of them write the same.
TEST(ModelFolderLayoutTest, OneRankWritesWhatAllWrite) {
  const SharedFolder scratch;
  MakeTaggedFolder(scratch / "in");
  const auto alone = World()->Split("alone", World()->rank(), 0);
  if (World()->rank() == 0) {
    EXPECT_TRUE(ImportModel({scratch / "in", scratch / "run", {}, 1}, *alone).ok());
  }
  World()->Barrier();
  ASSERT_TRUE(ExportModel({scratch / "run", scratch / "out", 2000}, *World()).ok());
  if (World()->rank() == 0) ExpectSameFolders(scratch / "out", scratch / "in");
}

TEST(ModelFolderLayoutTest, ABadFolderIsRefusedByAllRanksAlike) {
  const SharedFolder scratch;
  MakeTaggedFolder(scratch / "in");
  if (World()->rank() == 0) fs::resize_file(scratch / "in/model.safetensors", 5000);
  World()->Barrier();
  const auto imported = ImportModel({scratch / "in", scratch / "run", {}, 1}, *World());
  EXPECT_EQ(ExitCodeOf(imported.status()), ExitCode::kBadData);
  EXPECT_THAT(std::string(imported.status().message()),
              AllOf(HasSubstr("model.safetensors"), Not(HasSubstr("rank"))));
  EXPECT_FALSE(fs::exists(scratch / "run"));
  const auto loaded = LoadModel(scratch / "in", "", World(), 0);
  EXPECT_EQ(ExitCodeOf(loaded.status()), ExitCode::kBadData);
}

}  // namespace
}  // namespace hypermoe
