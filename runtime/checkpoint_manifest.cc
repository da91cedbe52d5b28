#include "runtime/checkpoint_manifest.h"

#include <c10/core/ScalarType.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/config_loader.h"
#include "runtime/file_util.h"
#include "runtime/fit_problems.h"
#include "runtime/manifest_json.h"
#include "runtime/safetensors.h"
#include "runtime/strict_json.h"

namespace hypermoe {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "hypermoe-checkpoint";
constexpr int64_t kVersion = 2;
constexpr size_t kHashDigits = 64;
constexpr char kOptimizer[] = "optimizer.";  // no parameter's name begins so
// What stands around the hash, which ends the file: all text before kHashBegin is hashed.
constexpr char kHashBegin[] = ",\n  \"manifest_sha256\": \"";
constexpr char kHashEnd[] = "\"\n}\n";

// Whether the hash is there and that of everything before it.
bool CheckHash(absl::string_view text) {
  if (!absl::ConsumeSuffix(&text, kHashEnd) || text.size() < kHashDigits) return false;
  const absl::string_view hash = text.substr(text.size() - kHashDigits);
  text.remove_suffix(kHashDigits);
  return absl::ConsumeSuffix(&text, kHashBegin) && hash == Sha256Digest(text.data(), text.size());
}

// That each tensor is of a dtype that can be read, and that those of a file fit into it, so that
// no size from a manifest is too large to compute with.
void CheckTensors(const CheckpointManifest& manifest, ManifestReader* reader) {
  std::map<std::string, int64_t> left;
  for (const auto& [name, file] : manifest.files) left[name] = file.bytes;
  for (const auto& [name, tensor] : manifest.tensors) {
    const auto file = left.find(tensor.file);
    const c10::ScalarType dtype = DtypeOfSafetensors(tensor.dtype);
    if (file == left.end()) {
      reader->Fail(absl::StrCat("tensor '", Printable(name), "' is in a file that is not listed"));
    } else if (dtype == c10::ScalarType::Undefined) {
      reader->Fail(absl::StrCat("tensor '", Printable(name), "' has dtype '",
                                Printable(tensor.dtype), "', which is not supported"));
    } else {
      auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
      bool fits = true;
      for (const int64_t dim : tensor.shape)
        fits = fits && !__builtin_mul_overflow(bytes, dim, &bytes);
      fits = fits && bytes <= file->second;
      if (!fits) {
        reader->Fail(absl::StrCat("tensor '", Printable(name), "' of shape ",
                                  ShapeText(tensor.shape), " is larger than its file"));
      } else {
        file->second -= bytes;
      }
    }
  }
}

// Every byte of a file is then read by some rank, or the checkpoint is not loaded.
void CheckFilesAreUsed(const CheckpointManifest& manifest, ManifestReader* reader) {
  std::set<std::string> used;
  for (const auto& [name, tensor] : manifest.tensors) used.insert(tensor.file);
  for (const auto& [name, file] : manifest.files) {
    if (!used.contains(name))
      reader->Fail(absl::StrCat("file '", Printable(name), "' holds none of the tensors"));
  }
}

absl::StatusOr<CheckpointManifest> ParseManifest(const std::string& path, const char* data,
                                                 size_t size, Digests digests) {
  ManifestReader reader(path);
  absl::StatusOr<json> parsed = ParseStrictJson(path, {data, size});
  if (!parsed.ok()) {
    return DataError(absl::StrCat(parsed.status().message(),
                                  "; the manifest is damaged: use another checkpoint"));
  }
  const json& text = *parsed;
  if (reader.Text(text, "format") != kFormat)
    reader.Fail(absl::StrCat("'format' is not \"", kFormat, "\""));
  // Before the hash, whose place may differ in another version.
  const int64_t version = reader.Count(text, "version");
  RETURN_IF_ERROR(reader.status());
  if (version != kVersion) {
    const std::string other = absl::StrCat(Printable(path), ": a checkpoint of format version ",
                                           version, "; this program reads version ", kVersion);
    // No damage, and no older checkpoint is to be taken in its place: a version that this program
    // once wrote (1 had another hash), or one that is whole.
    const bool whole = !text.contains("manifest_sha256") || CheckHash({data, size});
    return whole ? ConfigError(absl::StrCat(other, ": take the program that wrote it"))
                 : DataError(other);
  }
  if (digests == Digests::kCheck && !CheckHash({data, size}))
    reader.Fail("its text does not have the hash that its last line gives");
  RETURN_IF_ERROR(reader.status());

  constexpr int kMaxInt = std::numeric_limits<int>::max();
  CheckpointManifest manifest;
  manifest.sha256 = Sha256Digest(data, size);
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
  CheckTensors(manifest, &reader);
  CheckFilesAreUsed(manifest, &reader);
  RETURN_IF_ERROR(reader.status());
  // Not the user's configuration: whatever is wrong with it is wrong with the checkpoint.
  auto run_config = ParseConfigText(config, absl::StrCat("the config in ", path));
  if (!run_config.ok()) return DataError(std::string(run_config.status().message()));
  manifest.info.config = *std::move(run_config);
  return manifest;
}

absl::Status CheckNoOtherFiles(const std::string& checkpoint,
                               const std::map<std::string, ChunkedDigest>& files) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(checkpoint, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name == kManifestName || files.contains(name)) continue;
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint), " holds '", Printable(name),
                                  "', which manifest.json does not list: files of two checkpoints "
                                  "may be mixed; remove what does not belong there, or use "
                                  "another checkpoint"));
  }
  return error ? ErrnoError(checkpoint, "list the folder", error.value()) : absl::OkStatus();
}

absl::Status CheckFiles(const std::string& checkpoint,
                        const std::map<std::string, ChunkedDigest>& files) {
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
  return CheckNoOtherFiles(checkpoint, files);
}

}  // namespace

std::string StatePrefix(const std::string& kind) { return absl::StrCat(kOptimizer, kind, "."); }

bool IsMoment(const std::string& name) { return absl::StartsWith(name, kOptimizer); }

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
  const std::string hash = Sha256Digest(text.data(), text.size());
  return absl::StrCat(text, kHashBegin, hash, kHashEnd);
}

absl::StatusOr<CheckpointManifest> ReadManifest(const std::string& checkpoint, Digests digests) {
  std::filesystem::path folder = std::filesystem::path(checkpoint).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // a slash at the end
  if (absl::EndsWith(folder.string(), ".tmp")) {
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint),
                                  " was not finished; use another checkpoint"));
  }
  const std::string path = absl::StrCat(checkpoint, "/", kManifestName);
  struct stat info;
  const bool there = lstat(path.c_str(), &info) == 0;
  if (!there && (errno == ENOENT || errno == ENOTDIR)) {
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint),
                                  " is incomplete: manifest.json is missing; use another "
                                  "checkpoint"));
  }
  if (there && !S_ISREG(info.st_mode)) {
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint),
                                  ": manifest.json is not a regular file; use another checkpoint"));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                   MappedFile::Open(path, MappedFile::Links::kRefuse));
  ASSIGN_OR_RETURN(CheckpointManifest manifest,
                   ParseManifest(path, file->data(), file->size(), digests));
  RETURN_IF_ERROR(CheckFiles(checkpoint, manifest.files));
  return manifest;
}

std::string ManifestPartText(const ManifestPart& part) {
  json tensors = json::object();
  for (const auto& [name, tensor] : part.tensors) tensors[name] = TensorJson(tensor);
  return json{{"files", FilesJson(part.files)}, {"tensors", tensors}}.dump();
}

absl::Status AddManifestPart(const std::string& text, CheckpointManifest* manifest) {
  ManifestReader reader("part of a manifest from another rank");
  const json part = json::parse(text, nullptr, /*allow_exceptions=*/false);
  std::map<std::string, ChunkedDigest> files = reader.Files(part);
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
