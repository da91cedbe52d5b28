#include "runtime/model_folder_writer.h"

#include <stdio.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/agreement.h"
#include "runtime/file_util.h"
#include "runtime/hashed_file.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_layout.h"
#include "runtime/model_folder_names.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

struct Shard {
  std::string file;
  std::vector<std::string> tensors;  // names in the folder
  int64_t bytes = 0;
};

// The model's tensors under their names in the folder.
class TensorsToWrite : public TensorSource {
 public:
  explicit TensorsToWrite(const ModelFolder& model) : tensors_(*model.tensors) {
    ForEachFolderTensor(model.config, [&](const std::string& name, at::IntArrayRef) {
      for (const std::string& written : NamesInFolder(model.config.model(), name)) {
        names_.push_back(written);
        entries_[written] = tensors_.entries().at(name);
        parameter_of_[written] = name;
      }
    });
  }
  // In the order of the model.
  const std::vector<std::string>& names() const { return names_; }
  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override {
    return tensors_.Read(parameter_of_.at(name));
  }

 private:
  const TensorSource& tensors_;
  std::vector<std::string> names_;
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, std::string> parameter_of_;
};

// The tensors in the order of the model, each shard filled before the next, as Hugging Face does.
std::vector<Shard> PlanShards(const TensorsToWrite& tensors, int64_t max_shard_bytes) {
  std::vector<Shard> shards(1);
  for (const std::string& name : tensors.names()) {
    const int64_t bytes = TensorBytes(tensors.entries().at(name));
    if (!shards.back().tensors.empty() && shards.back().bytes + bytes > max_shard_bytes)
      shards.emplace_back();
    shards.back().tensors.push_back(name);
    shards.back().bytes += bytes;
  }
  shards[0].file = "model.safetensors";
  for (size_t i = 0; i < shards.size() && shards.size() > 1; ++i)
    shards[i].file = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
  return shards;
}

std::string IndexText(const std::vector<Shard>& shards) {
  nlohmann::json index = nlohmann::json::object();
  int64_t total = 0;
  for (const Shard& shard : shards) {
    total += shard.bytes;
    for (const std::string& tensor : shard.tensors) index["weight_map"][tensor] = shard.file;
  }
  index["metadata"]["total_size"] = total;
  return index.dump(2) + "\n";
}

// Hugging Face's name of the dtype that the tensors have, for a new config.json.
std::string DtypeName(const ModelFolder& model) {
  switch (model.tensors->entries().at(EmbeddingName(model.config.model())).dtype) {
    case c10::kDouble:
      return "float64";
    case c10::kHalf:
      return "float16";
    case c10::kBFloat16:
      return "bfloat16";
    default:
      return "float32";
  }
}

// What rank 0 does for all.
class OutputFolder {
 public:
  explicit OutputFolder(const std::string& path) {
    fs::path normal = fs::path(path).lexically_normal();
    if (!normal.has_filename()) normal = normal.parent_path();  // a slash at the end
    path_ = normal.string();
    temporary_ = absl::StrCat(ParentFolder(path_), "/.", normal.filename().string(), ".partial");
  }

  const std::string& temporary() const { return temporary_; }

  // Removes what a killed job has left of this folder.
  absl::Status Begin() const {
    std::error_code error;
    const fs::file_status status = fs::symlink_status(path_, error);
    const bool there = status.type() != fs::file_type::not_found;
    if (there && !(fs::is_directory(status) && fs::is_empty(path_, error))) {
      return UsageError(absl::StrCat("--output ", Printable(path_),
                                     " is there already and not an empty folder: give another "
                                     "name, or remove it"));
    }
    RETURN_IF_ERROR(CreateFolders(ParentFolder(path_)));
    fs::remove_all(temporary_, error);
    if (error) return ErrnoError(temporary_, "remove the folder", error.value());
    return CreatePrivateFolder(temporary_);
  }

  absl::Status Publish() const {
    RETURN_IF_ERROR(OpenFolderToOthers(temporary_));
    RETURN_IF_ERROR(SyncFolder(temporary_));
    if (rename(temporary_.c_str(), path_.c_str()) != 0)
      return ErrnoError(path_, "create the folder", errno);
    return SyncFolder(ParentFolder(path_));
  }

  void Discard() const {
    std::error_code ignored;  // another failure is being reported
    fs::remove_all(temporary_, ignored);
  }

 private:
  std::string path_, temporary_;
};

absl::Status WriteShards(const TensorsToWrite& tensors, const std::vector<Shard>& shards,
                         const std::string& folder, const Communicator& world) {
  for (size_t i = world.rank(); i < shards.size(); i += world.size()) {
    RETURN_IF_ERROR(WriteSafetensors(absl::StrCat(folder, "/", shards[i].file), shards[i].tensors,
                                     tensors, {{"format", "pt"}})
                        .status());
  }
  return absl::OkStatus();
}

absl::Status Complete(const std::string& config, const std::vector<Shard>& shards,
                      const OutputFolder& folder) {
  if (shards.size() > 1) {
    RETURN_IF_ERROR(
        WriteFileDurably(folder.temporary() + "/model.safetensors.index.json", IndexText(shards)));
  }
  RETURN_IF_ERROR(WriteFileDurably(folder.temporary() + "/config.json", config));
  return folder.Publish();
}

}  // namespace

absl::Status WriteModelFolder(const ModelFolder& model, const std::string& output,
                              int64_t max_shard_bytes, Communicator& world) {
  RETURN_IF_ERROR(Agree(world, CheckFolderTensors("the model to be written", model)));
  const absl::StatusOr<std::string> config =
      FolderConfigText(model.config, model.config_json, DtypeName(model));
  RETURN_IF_ERROR(Agree(world, config.status()));
  const TensorsToWrite tensors(model);
  const std::vector<Shard> shards = PlanShards(tensors, max_shard_bytes);
  const OutputFolder folder(output);
  const bool first = world.rank() == 0;
  RETURN_IF_ERROR(Agree(world, first ? folder.Begin() : absl::OkStatus()));
  absl::Status status = Agree(world, WriteShards(tensors, shards, folder.temporary(), world));
  if (status.ok())
    status = Agree(world, first ? Complete(*config, shards, folder) : absl::OkStatus());
  if (!status.ok() && first) folder.Discard();
  return status;
}

absl::StatusOr<int64_t> ParseByteSize(const std::string& text) {
  static const std::vector<std::pair<std::string, double>> units = {
      {"kib", 1024.0}, {"mib", 1048576.0}, {"gib", 1073741824.0}, {"kb", 1e3}, {"mb", 1e6},
      {"gb", 1e9},     {"b", 1.0}};
  std::string number = absl::AsciiStrToLower(text);
  double unit = 1;
  for (const auto& [suffix, bytes] : units) {
    if (number.size() <= suffix.size() || !number.ends_with(suffix)) continue;
    number.resize(number.size() - suffix.size());
    unit = bytes;
    break;
  }
  double value = 0;
  constexpr double kMax = 9e18;  // below 2^63
  if (absl::SimpleAtod(number, &value) && value * unit >= 1 && value * unit <= kMax)
    return static_cast<int64_t>(value * unit);
  return UsageError(absl::StrCat("'", text,
                                 "' is not a size: expected a number of bytes above 0, such as "
                                 "5GB, 500MB, 4GiB or 1000000"));
}

}  // namespace hypermoe
