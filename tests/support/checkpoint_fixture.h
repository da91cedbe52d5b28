// Checkpoints of one rank in a run folder of their own, whole or tampered with.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "runtime/checkpoint.h"
#include "runtime/config_loader.h"
#include "runtime/safetensors.h"
#include "tests/support/tagged_model.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {

constexpr int64_t kNumExperts = 6;

inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

// One rank, one run folder.
class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() : mesh_(ProcessMesh::Create(NewSelfCommunicator("world"), 1)) {
    info_.config = LoadConfig("", {"model.num_experts=6"}).value();
    info_.data_fingerprint = "12:0123";
    info_.threads = 2;
  }

  // Saves tags of `salt`; the checkpoint's folder.
  std::string Save(int64_t step, int salt = 1) {
    TaggedModel model({});
    model.Fill(salt, step);
    info_.step = step;
    const absl::Status saved =
        SaveCheckpoint(run_.path(), info_, model.buffers(), model.optimizer(), mesh_);
    EXPECT_TRUE(saved.ok()) << saved;
    return Folder(step);
  }

  std::string Folder(int64_t step) const {
    char name[64];
    std::snprintf(name, sizeof(name), "checkpoints/step_%08d", static_cast<int>(step));
    return run_ / name;
  }

  // The message with which a load fails. No value may have changed.
  std::string LoadError(const std::string& checkpoint, ExitCode code = ExitCode::kBadData) {
    TaggedModel model({});
    const absl::Status status =
        LoadCheckpoint(checkpoint, kNumExperts, model.buffers(), model.optimizer(), *mesh_.world);
    EXPECT_EQ(ExitCodeOf(status), code) << status;
    EXPECT_TRUE(model.AllZero());
    return Message(status);
  }

  // Writes the safetensors file again as `change` leaves its tensors, and a manifest that agrees
  // with it.
  void Rewrite(const std::string& checkpoint,
               const std::function<void(std::vector<NamedTensor>*)>& change) {
    const std::string path = checkpoint + "/rank_00000.safetensors";
    std::vector<NamedTensor> tensors;
    {
      const auto file = SafetensorsFile::Open(path).value();
      for (const std::string& name : file->names())
        tensors.push_back({name, file->Get(name).value().clone()});
    }
    change(&tensors);
    CheckpointManifest manifest = ReadManifest(checkpoint).value();
    manifest.files["rank_00000.safetensors"] = WriteSafetensors(path, tensors, {}).value();
    manifest.tensors.clear();
    for (const auto& [name, tensor] : tensors) {
      manifest.tensors[name] = {"rank_00000.safetensors", SafetensorsDtype(tensor.scalar_type()),
                                tensor.sizes().vec()};
    }
    WriteFile(checkpoint + "/manifest.json", ManifestText(manifest));
  }

  // Writes every file again, digested by chunks of `chunk_bytes`, so that a small file has many.
  void Rechunk(const std::string& checkpoint, int64_t chunk_bytes) {
    CheckpointManifest manifest = ReadManifest(checkpoint).value();
    for (auto& [name, digest] : manifest.files) {
      const std::string path = checkpoint + "/" + name;
      std::vector<NamedTensor> tensors;
      {
        const auto file = SafetensorsFile::Open(path).value();
        for (const std::string& tensor : file->names())
          tensors.push_back({tensor, file->Get(tensor).value().clone()});
      }
      digest = WriteSafetensors(path, tensors, {}, chunk_bytes).value();
    }
    WriteFile(checkpoint + "/manifest.json", ManifestText(manifest));
  }

  // Changes the manifest as text and gives it the right hash again.
  void RewriteManifest(const std::string& checkpoint, const std::string& from,
                       const std::string& to) {
    std::string text = ReadFile(checkpoint + "/manifest.json");
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    const std::string mark = ",\n  \"manifest_sha256\": \"";
    const size_t end = text.rfind(mark);
    ASSERT_NE(end, std::string::npos);
    text.replace(end + mark.size(), 64, Sha256Digest(text.data(), end));
    WriteFile(checkpoint + "/manifest.json", text);
  }

  TemporaryFolder run_;
  ProcessMesh mesh_;
  CheckpointInfo info_;
};

}  // namespace hypermoe
