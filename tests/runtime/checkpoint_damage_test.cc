// What is wrong with a checkpoint is found before a value changes.
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "runtime/checkpoint_file.h"
#include "tests/support/checkpoint_fixture.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

using CheckpointDamageTest = CheckpointTest;

TEST_F(CheckpointDamageTest, TruncatedMissingAndLinkedFilesAreNamed) {
  const std::string checkpoint = Save(1);
  const std::string file = checkpoint + "/rank_00000.safetensors";
  const std::string good = ReadFile(file);
  const auto names_it = AllOf(HasSubstr(checkpoint), HasSubstr("'rank_00000.safetensors'"));
  WriteFile(file, good.substr(0, good.size() - 1));
  EXPECT_THAT(LoadError(checkpoint),
              AllOf(names_it, HasSubstr("expected " + std::to_string(good.size()))));
  fs::remove(file);
  EXPECT_THAT(LoadError(checkpoint), AllOf(names_it, HasSubstr("is missing")));
  WriteFile(run_ / "elsewhere", good);
  fs::create_symlink(run_ / "elsewhere", file);
  EXPECT_THAT(LoadError(checkpoint), AllOf(names_it, HasSubstr("not a regular file")));
  EXPECT_FALSE(LatestCheckpoint(run_.path()).ok());

  fs::rename(checkpoint + "/manifest.json", run_ / "manifest");
  fs::create_symlink(run_ / "manifest", checkpoint + "/manifest.json");
  EXPECT_THAT(LoadError(checkpoint), HasSubstr("manifest.json is not a regular file"));
}

// As a bad sector would have it, a mapped page that is gone would end the process by a signal.
TEST_F(CheckpointDamageTest, BytesThatTheMediumDoesNotGiveAreAnErrorNotASignal) {
  const std::string checkpoint = Save(1);
  const CheckpointManifest manifest = ReadManifest(checkpoint).value();
  const auto file = CheckpointFile::Open(checkpoint, "rank_00000.safetensors", manifest).value();
  fs::resize_file(checkpoint + "/rank_00000.safetensors", 0);
  const absl::Status status = file->CheckChunk(0);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
  EXPECT_THAT(Message(status), AllOf(HasSubstr(checkpoint), HasSubstr("cannot be read")));
}

TEST_F(CheckpointDamageTest, AManifestCannotPointOutside) {
  for (const char* name : {"../rank_00000.safetensors", "/etc/hostname", "a/b", "..", ".", "",
                           "a\\\\b", "a\\u0000b"}) {
    const std::string checkpoint = Save(1);
    RewriteManifest(checkpoint, "\"name\":\"rank_00000.safetensors\"",
                    std::string("\"name\":\"") + name + "\"");
    EXPECT_THAT(LoadError(checkpoint), HasSubstr("is not a plain name")) << name;
  }
}

TEST_F(CheckpointDamageTest, ManifestsThatMakeNoSenseAreRefused) {
  struct Case {
    const char* from;
    const char* to;
    const char* reason;
  };
  for (const Case& bad : std::vector<Case>{
           {"\"format\": \"hypermoe-checkpoint\"", "\"format\": \"other\"", "'format' is not"},
           {"\"step\": 1", "\"step\": -1", "'step' is not a non-negative integer"},
           {"\"step\": 1", "\"stop\": 1", "'step' is missing"},
           {"\"world_size\": 1", "\"world_size\": 4294967296", "'world_size' is 4294967296"},
           {"\"config\": \"", "\"config\": \"no_such_field: 1 ", "no_such_field"},
           {"\"shape\":[7,3]", "\"shape\":[-7,3]", "'shape' holds something else"},
           {"\"dtype\":\"F32\"", "\"dtype\":32", "'dtype' is not a text"},
           {"\"dtype\":\"F32\"", "\"dtype\":\"F33\"", "dtype 'F33', which is not supported"},
           {"\"chunk_bytes\":4194304", "\"chunk_bytes\":0", "expected one for each 0 bytes"},
           {"\"chunk_bytes\":4194304", "\"chunk_bytes\":64", "1 digests, expected one for each 64"},
           {"\"shape\":[7,3]", "\"shape\":[9223372036854775807,3]", "is larger than its file"},
           {"\"shape\":[7,3]", "\"shape\":[18446744073709551615]", "'shape' holds something else"},
           {"\"step\": 1", "\"step\": 1, \"step\": 1", "key 'step' stands twice"},
           {"\"files\": [",
            "\"files\": [{\"name\":\"more\",\"bytes\":0,\"chunk_bytes\":1,"
            "\"xxh3_128\":[]},",
            "file 'more' holds none of the tensors"},
           {"\"file\":\"rank_00000.safetensors\"", "\"file\":\"rank_00001.safetensors\"",
            "in a file that is not listed"},
           {"\"shape\":[7,3]", "\"shape\":[3,7]",
            "tensor 'optimizer.first_moment.wte.weight' is F32[3,7], expected F32[7,3]"},
       }) {
    const std::string checkpoint = Save(1);
    RewriteManifest(checkpoint, bad.from, bad.to);
    EXPECT_THAT(LoadError(checkpoint), AllOf(HasSubstr(checkpoint), HasSubstr(bad.reason)))
        << bad.to;
  }
}

// No older checkpoint may be taken in place of one that another program has written.
TEST_F(CheckpointDamageTest, AnotherVersionIsNoDamageUnlessTheHashSaysSo) {
  const std::string checkpoint = Save(1);
  RewriteManifest(checkpoint, "\"version\": 2", "\"version\": 3");
  EXPECT_THAT(LoadError(checkpoint, ExitCode::kConfig),
              HasSubstr("format version 3; this program reads version 2"));
  const std::string path = checkpoint + "/manifest.json";
  std::string text = ReadFile(path);
  text.replace(text.find("\"version\": 3"), 12, "\"version\": 4");
  std::ofstream(path) << text;
  EXPECT_THAT(LoadError(checkpoint), HasSubstr("format version 4; this program reads version 2"));
}

TEST_F(CheckpointDamageTest, AllTensorsThatDoNotFitAreListed) {
  const std::string checkpoint = Save(1);
  Rewrite(checkpoint, [](std::vector<NamedTensor>* tensors) {
    for (NamedTensor& named : *tensors) {
      if (named.name == "wte.weight") named.name = "wpe.weight";
      if (named.name == "ln_f.bias") named.tensor = at::zeros({4});
      if (named.name == "h.0.mlp.experts.expert_5.c_fc.bias")
        named.tensor = named.tensor.to(at::kDouble);
      if (named.name == "optimizer.first_moment.h.1.mlp.experts.expert_0.c_fc.bias")
        named.name = "x.expert_{e}";
    }
  });
  EXPECT_THAT(
      LoadError(checkpoint),
      AllOf(HasSubstr(checkpoint), HasSubstr("missing tensor 'wte.weight'"),
            HasSubstr("unexpected tensor 'wpe.weight'"),
            HasSubstr("tensor 'ln_f.bias' is F32[4], expected F32[3]"),
            HasSubstr("tensor 'h.0.mlp.experts.expert_5.c_fc.bias' is F64[2], expected F32[2]"),
            HasSubstr("missing tensor 'optimizer.first_moment.h.1.mlp.experts.expert_0.c_fc.bias'"),
            HasSubstr("unexpected tensor 'x.expert_{e}'")));
}

TEST_F(CheckpointDamageTest, ALongListIsCutShort) {
  const std::string checkpoint = Save(1);
  Rewrite(checkpoint, [](std::vector<NamedTensor>* tensors) { tensors->resize(1); });
  const std::string message = LoadError(checkpoint);
  EXPECT_THAT(message, HasSubstr("; and 73 more"));
  const std::regex missing("missing tensor");
  EXPECT_EQ(std::distance(std::sregex_iterator(message.begin(), message.end(), missing), {}), 10);
}

TEST_F(CheckpointDamageTest, AFileThatBeliesItsManifestIsRefused) {
  const std::string checkpoint = Save(1);
  const std::string manifest = ReadFile(checkpoint + "/manifest.json");
  Rewrite(checkpoint, [](std::vector<NamedTensor>* tensors) {
    for (NamedTensor& named : *tensors) {
      if (named.name == "wte.weight") named.tensor = named.tensor.view({3, 7});
      if (named.name == "ln_f.bias") named.name = "ln_f.weight";
    }
  });
  const CheckpointManifest rewritten = ReadManifest(checkpoint).value();
  WriteFile(checkpoint + "/manifest.json", manifest);
  CheckpointManifest lying = rewritten;
  lying.tensors["wte.weight"].shape = {7, 3};
  lying.tensors["ln_f.bias"] = lying.tensors["ln_f.weight"];
  lying.tensors.erase("ln_f.weight");
  WriteFile(checkpoint + "/manifest.json", ManifestText(lying));
  EXPECT_THAT(LoadError(checkpoint), AllOf(HasSubstr("tensor 'wte.weight' is not in file '"),
                                           HasSubstr("' as manifest.json says"),
                                           HasSubstr("tensor 'ln_f.bias' is not in the file")));
}

TEST_F(CheckpointDamageTest, MoreOrFewerExpertsThanTheModelHasAreFound) {
  const std::string checkpoint = Save(1);
  // A model with experts 0 to 4, as a rank sees it that holds only the first.
  TaggedLayout layout;
  layout.num_experts = 5;
  layout.expert_degree = 5;
  TaggedModel fewer(layout);
  const absl::Status status =
      LoadCheckpoint(checkpoint, 5, fewer.buffers(), fewer.optimizer(), *mesh_.world);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("unexpected tensor 'h.0.mlp.experts.expert_5.c_fc.bias'"),
                    Not(HasSubstr("expert_4"))));
  layout.num_experts = 7;
  layout.expert_degree = 1;
  TaggedModel more(layout);
  EXPECT_THAT(
      Message(LoadCheckpoint(checkpoint, 7, more.buffers(), more.optimizer(), *mesh_.world)),
      HasSubstr("missing tensor 'h.1.mlp.experts.expert_6.c_fc.weight'"));
}

}  // namespace
}  // namespace hypermoe
