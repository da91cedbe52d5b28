#include "runtime/checkpoint_manifest.h"

#include <sys/stat.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/config_loader.h"

namespace hypermoe {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "hypermoe-checkpoint";
constexpr int64_t kVersion = 1;
constexpr size_t kHashDigits = 32;
// What stands around the hash, which ends the file: all text before kHashBegin is hashed.
constexpr char kHashBegin[] = ",\n  \"manifest_xxh3_128\": \"";
constexpr char kHashEnd[] = "\"\n}\n";

json FilesJson(const std::map<std::string, FileDigest>& files) {
  json list = json::array();
  for (const auto& [name, file] : files) {
    list.push_back({{"name", name}, {"bytes", file.bytes}, {"xxh3_128", file.xxh3_128}});
  }
  return list;
}

json TensorJson(const CheckpointTensor& tensor) {
  return {{"file", tensor.file}, {"dtype", tensor.dtype}, {"shape", tensor.shape}};
}

// Reads members of objects and keeps the first thing that is wrong, so that a list of members reads
// as one.
class JsonReader {
 public:
  explicit JsonReader(std::string path) : path_(std::move(path)) {}

  const absl::Status& status() const { return status_; }

  void Fail(const std::string& problem) {
    if (status_.ok())
      status_ = DataError(
          absl::StrCat(Printable(path_), ": damaged or not a checkpoint's manifest: ", problem));
  }

  const json& Member(const json& object, const char* key, json::value_t type,
                     const char* type_name) {
    static const json kNull;
    if (!object.is_object() || !object.contains(key)) {
      Fail(absl::StrCat("'", key, "' is missing"));
      return kNull;
    }
    const json& value = object[key];
    if (value.type() == type) return value;
    Fail(absl::StrCat("'", key, "' is not ", type_name));
    return kNull;
  }

  std::string Text(const json& object, const char* key) {
    const json& value = Member(object, key, json::value_t::string, "a text");
    return value.is_string() ? value.get<std::string>() : "";
  }

  int64_t Count(const json& object, const char* key,
                int64_t max = std::numeric_limits<int64_t>::max()) {
    const json& value =
        Member(object, key, json::value_t::number_unsigned, "a non-negative integer");
    if (!value.is_number_unsigned()) return 0;
    if (value.get<uint64_t>() > static_cast<uint64_t>(max)) {
      Fail(absl::StrCat("'", key, "' is ", value.get<uint64_t>(), ", at most ", max,
                        " is possible"));
      return 0;
    }
    return value.get<int64_t>();
  }

  std::map<std::string, FileDigest> Files(const json& object) {
    std::map<std::string, FileDigest> files;
    for (const json& item : Member(object, "files", json::value_t::array, "an array")) {
      const std::string name = Text(item, "name");
      if (!IsPlainName(name))
        Fail(absl::StrCat("file name '", Printable(name), "' is not a plain name"));
      files[name] = {Count(item, "bytes"), Text(item, "xxh3_128")};
    }
    return files;
  }

  std::map<std::string, CheckpointTensor> Tensors(const json& object) {
    std::map<std::string, CheckpointTensor> tensors;
    const json& members = Member(object, "tensors", json::value_t::object, "an object");
    for (const auto& [name, item] : members.items()) {
      CheckpointTensor& tensor = tensors[name];
      tensor.file = Text(item, "file");
      tensor.dtype = Text(item, "dtype");
      for (const json& dim : Member(item, "shape", json::value_t::array, "an array")) {
        if (dim.is_number_unsigned()) {
          tensor.shape.push_back(dim.get<int64_t>());
        } else {
          Fail(absl::StrCat("tensor '", Printable(name),
                            "': 'shape' holds something else than non-negative integers"));
        }
      }
    }
    return tensors;
  }

 private:
  std::string path_;
  absl::Status status_;
};

// Everything before the hash, if that is there and right.
bool CheckHash(absl::string_view text) {
  if (!absl::ConsumeSuffix(&text, kHashEnd) || text.size() < kHashDigits) return false;
  const absl::string_view hash = text.substr(text.size() - kHashDigits);
  text.remove_suffix(kHashDigits);
  return absl::ConsumeSuffix(&text, kHashBegin) &&
         hash == DigestOf(text.data(), text.size()).xxh3_128;
}

absl::StatusOr<CheckpointManifest> ParseManifest(const std::string& path, const char* data,
                                                 size_t size) {
  JsonReader reader(path);
  const json text = json::parse(data, data + size, nullptr, /*allow_exceptions=*/false);
  if (text.is_discarded()) reader.Fail("it is not JSON");
  if (reader.Text(text, "format") != kFormat)
    reader.Fail(absl::StrCat("'format' is not \"", kFormat, "\""));
  // Before the hash, whose place may differ in another version.
  const int64_t version = reader.Count(text, "version");
  RETURN_IF_ERROR(reader.status());
  if (version != kVersion) {
    return DataError(absl::StrCat(Printable(path), ": a checkpoint of format version ", version,
                                  "; this program reads version ", kVersion));
  }
  if (!CheckHash({data, size}))
    reader.Fail("its text does not have the hash that its last line gives");
  RETURN_IF_ERROR(reader.status());

  constexpr int kMaxInt = std::numeric_limits<int>::max();
  CheckpointManifest manifest;
  manifest.info.step = reader.Count(text, "step");
  manifest.info.data_fingerprint = reader.Text(text, "data_fingerprint");
  manifest.info.world_size = static_cast<int>(reader.Count(text, "world_size", kMaxInt));
  manifest.info.expert_parallel = static_cast<int>(reader.Count(text, "expert_parallel", kMaxInt));
  manifest.info.threads = static_cast<int>(reader.Count(text, "threads", kMaxInt));
  manifest.optimizer_steps = reader.Count(text, "optimizer_steps");
  manifest.files = reader.Files(text);
  manifest.tensors = reader.Tensors(text);
  if (text.contains("source_config"))
    manifest.info.source_config = reader.Text(text, "source_config");
  for (const auto& [name, tensor] : manifest.tensors)
    manifest.info.has_moments = manifest.info.has_moments || IsMoment(name);
  const std::string config = reader.Text(text, "config");
  for (const auto& [name, tensor] : manifest.tensors) {
    if (!manifest.files.contains(tensor.file)) {
      reader.Fail(absl::StrCat("tensor '", Printable(name), "' is in a file that is not listed"));
    }
  }
  RETURN_IF_ERROR(reader.status());
  // Not the user's configuration: whatever is wrong with it is wrong with the checkpoint.
  auto parsed = ParseConfigText(config, absl::StrCat("the config in ", path));
  if (!parsed.ok()) return DataError(std::string(parsed.status().message()));
  manifest.info.config = *std::move(parsed);
  return manifest;
}

absl::Status CheckFiles(const std::string& checkpoint,
                        const std::map<std::string, FileDigest>& files) {
  for (const auto& [name, file] : files) {
    const std::string path = absl::StrCat(checkpoint, "/", name);
    struct stat info;
    std::string problem;
    if (lstat(path.c_str(), &info) != 0) {
      problem = "is missing";
    } else if (!S_ISREG(info.st_mode)) {
      problem = "is not a regular file";
    } else if (info.st_size != file.bytes) {
      problem = absl::StrCat("has ", info.st_size, " bytes, expected ", file.bytes);
    } else {
      continue;
    }
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint), " is incomplete: file '",
                                  Printable(name), "' ", problem, "; use another checkpoint"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsMoment(const std::string& name) {
  return absl::StartsWith(name, kFirstMomentPrefix) || absl::StartsWith(name, kSecondMomentPrefix);
}

std::string ManifestText(const CheckpointManifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  std::vector<std::pair<const char*, json>> members = {
      {"format", kFormat},
      {"version", kVersion},
      {"step", info.step},
      {"config", ConfigText(info.config)},
      {"data_fingerprint", info.data_fingerprint},
      {"world_size", info.world_size},
      {"expert_parallel", info.expert_parallel},
      {"threads", info.threads},
      {"optimizer_steps", manifest.optimizer_steps},
      {"files", FilesJson(manifest.files)},
  };
  if (!info.source_config.empty()) members.emplace_back("source_config", info.source_config);
  std::string text = "{\n";
  for (const auto& [key, value] : members)
    absl::StrAppend(&text, "  \"", key, "\": ", value.dump(), ",\n");
  // One tensor a line, for people.
  absl::StrAppend(&text, "  \"tensors\": {");
  const char* separator = "\n";
  for (const auto& [name, tensor] : manifest.tensors) {
    absl::StrAppend(&text, separator, "    ", json(name).dump(), ": ", TensorJson(tensor).dump());
    separator = ",\n";
  }
  absl::StrAppend(&text, "\n  }");
  const std::string hash = DigestOf(text.data(), text.size()).xxh3_128;
  return absl::StrCat(text, kHashBegin, hash, kHashEnd);
}

absl::StatusOr<CheckpointManifest> ReadManifest(const std::string& checkpoint) {
  std::filesystem::path folder = std::filesystem::path(checkpoint).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // a slash at the end
  if (absl::EndsWith(folder.string(), ".tmp")) {
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint),
                                  " was not finished; use another checkpoint"));
  }
  const std::string path = absl::StrCat(checkpoint, "/manifest.json");
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                   MappedFile::Open(path, MappedFile::Links::kRefuse));
  ASSIGN_OR_RETURN(CheckpointManifest manifest, ParseManifest(path, file->data(), file->size()));
  RETURN_IF_ERROR(CheckFiles(checkpoint, manifest.files));
  return manifest;
}

std::string ManifestPartText(const ManifestPart& part) {
  json tensors = json::object();
  for (const auto& [name, tensor] : part.tensors) tensors[name] = TensorJson(tensor);
  return json{{"files", FilesJson(part.files)}, {"tensors", tensors}}.dump();
}

absl::Status AddManifestPart(const std::string& text, CheckpointManifest* manifest) {
  JsonReader reader("part of a manifest from another rank");
  const json part = json::parse(text, nullptr, /*allow_exceptions=*/false);
  std::map<std::string, FileDigest> files = reader.Files(part);
  std::map<std::string, CheckpointTensor> tensors = reader.Tensors(part);
  if (!reader.status().ok()) return InternalError(std::string(reader.status().message()));
  manifest->files.merge(files);
  manifest->tensors.merge(tensors);
  // What merge leaves behind was there already.
  if (!files.empty() || !tensors.empty()) {
    return InternalError(
        absl::StrCat("two ranks wrote '",
                     Printable(files.empty() ? tensors.begin()->first : files.begin()->first),
                     "' to one checkpoint"));
  }
  return absl::OkStatus();
}

}  // namespace hypermoe
