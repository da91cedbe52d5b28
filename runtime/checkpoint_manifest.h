// manifest.json of a checkpoint: which files it consists of, with digests of their chunks, which
// tensor is in which, and everything that is not a tensor. The last entry is the SHA-256 of all
// text before it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/hashed_file.h"
#include "runtime/status.h"

namespace hypermoe {

// What a checkpoint knows beside tensors.
struct CheckpointInfo {
  int64_t step = 0;  // optimizer steps taken
  RunConfig config;
  std::string data_fingerprint;  // Splits::fingerprint
  int world_size = 1;
  int expert_parallel = 1;
  int threads = 1;  // per rank
  // Of a model that came from a model folder (model_folder.h): the folder's config.json.
  std::string source_config;
  // Whether there is all that training needs to go on: not after an import. Found on reading.
  bool has_moments = false;
};

// What stands before a parameter's name in that of its state of a kind (Optimizer::kinds):
// "optimizer.first_moment.".
std::string StatePrefix(const std::string& kind);

struct CheckpointTensor {
  std::string file;
  std::string dtype;  // in safetensors' letters
  std::vector<int64_t> shape;
};

struct CheckpointManifest {
  CheckpointInfo info;
  std::string sha256;  // of its text, found on reading
  int64_t optimizer_steps = 0;
  std::map<std::string, ChunkedDigest> files;  // by plain file name
  std::map<std::string, CheckpointTensor> tensors;
};

// Whether a checkpoint's tensor of this name is one of the optimizer's moments.
bool IsMoment(const std::string& name);

std::string ManifestText(const CheckpointManifest& manifest);

// kIgnore reads all the same, and is for tests, which show with it that damage gets through where no
// digest is compared, and for measuring what comparing costs.
enum class Digests { kCheck, kIgnore };

// Reads and checks the manifest of a checkpoint folder, and that exactly its files are there, with
// their sizes (their content is checked as it is read: CheckpointFile). DataError for everything
// that damage can do, a missing manifest included, and for a temporary folder; IoError if something
// that is there cannot be opened. Local.
absl::StatusOr<CheckpointManifest> ReadManifest(const std::string& checkpoint,
                                                Digests digests = Digests::kCheck);

// One rank's share of a manifest under construction, as text for rank 0, and back.
struct ManifestPart {
  std::map<std::string, ChunkedDigest> files;
  std::map<std::string, CheckpointTensor> tensors;
};
std::string ManifestPartText(const ManifestPart& part);
// Adds the part to `manifest`; InternalError if another rank has written one of its names already.
absl::Status AddManifestPart(const std::string& text, CheckpointManifest* manifest);

}  // namespace hypermoe
