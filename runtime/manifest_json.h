// The JSON form of what a manifest lists (checkpoint_manifest.h), and a reader of such JSON that
// keeps the first thing that is wrong.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"

namespace hypermoe {

constexpr char kManifestName[] = "manifest.json";

nlohmann::json FilesJson(const std::map<std::string, ChunkedDigest>& files);
nlohmann::json TensorJson(const CheckpointTensor& tensor);

// Reads members of objects. After a failure it gives empty values, so that a list of members reads
// as one.
class ManifestReader {
 public:
  // `path` names the text in messages.
  explicit ManifestReader(std::string path);

  // DataError with the first thing that was wrong.
  const absl::Status& status() const { return status_; }
  void Fail(const std::string& problem);

  std::string Text(const nlohmann::json& object, const char* key);
  int64_t Count(const nlohmann::json& object, const char* key,
                int64_t max = std::numeric_limits<int64_t>::max());
  std::map<std::string, ChunkedDigest> Files(const nlohmann::json& object);
  std::map<std::string, CheckpointTensor> Tensors(const nlohmann::json& object);

 private:
  const nlohmann::json& Member(const nlohmann::json& object, const char* key,
                               nlohmann::json::value_t type, const char* type_name);
  ChunkedDigest File(const std::string& name, const nlohmann::json& item);

  std::string path_;
  absl::Status status_;
};

}  // namespace hypermoe
