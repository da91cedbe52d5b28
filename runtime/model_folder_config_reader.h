// What readers of config.json have in common, whatever the family of models.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/model_folder_keys.h"
#include "runtime/status.h"

namespace hypermoe {

// A boolean key of Hugging Face's configurations that changes what a model computes, its default,
// and the only value that is supported.
struct FixedSwitch {
  const char* key;
  bool if_absent;
  bool supported;
};

class FolderConfigReader {
 public:
  // `top`: the content of the file `path`. Both must outlive this.
  FolderConfigReader(const std::string& path, const nlohmann::json& top);

 protected:
  RunConfig& result() { return result_; }
  ModelConfig& model() { return *result_.mutable_model(); }
  HyperConfig& hyper() { return *result_.mutable_hyper(); }
  const nlohmann::json& top() const { return top_; }
  const std::string& path() const { return path_; }

  // DataError: "FILE: 'KEY' is VALUE, expected EXPECTED".
  absl::Status Refuse(const std::string& key, const nlohmann::json& value,
                      const std::string& expected) const;
  // ConfigError: a value that is valid elsewhere; `supported` says what is valid here.
  absl::Status NotSupported(const std::string& key, const nlohmann::json& value,
                            const std::string& supported) const;

  // Of the switches, and of keys that no family supports.
  absl::Status CheckSwitches(const std::vector<FixedSwitch>& switches) const;
  // Sets the field at `field_path` to `value`.
  absl::Status Put(const std::string& key, const nlohmann::json& value,
                   const std::string& field_path);
  absl::Status ReadKeys(const nlohmann::json& block, const std::string& prefix,
                        const std::vector<FolderKey>& keys);
  // The block `key` of `parent`: an object, empty if it is absent.
  absl::StatusOr<nlohmann::json> Block(const nlohmann::json& parent, const std::string& prefix,
                                       const char* key) const;
  // The block "hypermoe" of a sparse model, and so its kind: moe without it.
  absl::Status ReadHypermoe();

 private:
  std::string Is(const std::string& key, const nlohmann::json& value) const;
  absl::Status ReadWeightEncoder(const nlohmann::json& block);
  absl::Status CheckWeighting(const nlohmann::json& block);
  absl::Status ReadBaked(const nlohmann::json& block);

  const std::string& path_;
  const nlohmann::json& top_;
  RunConfig result_;  // every field set
};

}  // namespace hypermoe
