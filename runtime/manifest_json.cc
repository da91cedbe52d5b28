#include "runtime/manifest_json.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxDim = std::numeric_limits<int64_t>::max();

int64_t NumChunks(const ChunkedDigest& file) {
  return file.bytes / file.chunk_bytes + (file.bytes % file.chunk_bytes > 0);
}

}  // namespace

json FilesJson(const std::map<std::string, ChunkedDigest>& files) {
  json list = json::array();
  for (const auto& [name, file] : files) {
    list.push_back({{"name", name},
                    {"bytes", file.bytes},
                    {"chunk_bytes", file.chunk_bytes},
                    {"xxh3_128", file.chunks}});
  }
  return list;
}

json TensorJson(const CheckpointTensor& tensor) {
  return {{"file", tensor.file}, {"dtype", tensor.dtype}, {"shape", tensor.shape}};
}

ManifestReader::ManifestReader(std::string path) : path_(std::move(path)) {}

void ManifestReader::Fail(const std::string& problem) {
  if (!status_.ok()) return;
  status_ = DataError(
      absl::StrCat(Printable(path_), ": damaged or not a checkpoint's manifest: ", problem));
}

const json& ManifestReader::Member(const json& object, const char* key, json::value_t type,
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

std::string ManifestReader::Text(const json& object, const char* key) {
  const json& value = Member(object, key, json::value_t::string, "a text");
  return value.is_string() ? value.get<std::string>() : "";
}

int64_t ManifestReader::Count(const json& object, const char* key, int64_t max) {
  const json& value = Member(object, key, json::value_t::number_unsigned, "a non-negative integer");
  if (!value.is_number_unsigned()) return 0;
  if (value.get<uint64_t>() > static_cast<uint64_t>(max)) {
    Fail(absl::StrCat("'", key, "' is ", value.get<uint64_t>(), ", at most ", max, " is possible"));
    return 0;
  }
  return value.get<int64_t>();
}

ChunkedDigest ManifestReader::File(const std::string& name, const json& item) {
  ChunkedDigest file;
  file.bytes = Count(item, "bytes");
  file.chunk_bytes = Count(item, "chunk_bytes");
  for (const json& chunk : Member(item, "xxh3_128", json::value_t::array, "an array"))
    file.chunks.push_back(chunk.is_string() ? chunk.get<std::string>() : "");
  if (file.chunk_bytes == 0 || NumChunks(file) != static_cast<int64_t>(file.chunks.size())) {
    Fail(absl::StrCat("file '", Printable(name), "' of ", file.bytes, " bytes has ",
                      file.chunks.size(), " digests, expected one for each ", file.chunk_bytes,
                      " bytes"));
  }
  return file;
}

std::map<std::string, ChunkedDigest> ManifestReader::Files(const json& object) {
  std::map<std::string, ChunkedDigest> files;
  for (const json& item : Member(object, "files", json::value_t::array, "an array")) {
    const std::string name = Text(item, "name");
    if (!IsPlainName(name) || name == kManifestName)
      Fail(absl::StrCat("file name '", Printable(name), "' is not a plain name of a data file"));
    if (!files.emplace(name, File(name, item)).second)
      Fail(absl::StrCat("file '", Printable(name), "' stands twice"));
  }
  return files;
}

std::map<std::string, CheckpointTensor> ManifestReader::Tensors(const json& object) {
  std::map<std::string, CheckpointTensor> tensors;
  const json& members = Member(object, "tensors", json::value_t::object, "an object");
  for (const auto& [name, item] : members.items()) {
    CheckpointTensor& tensor = tensors[name];
    tensor.file = Text(item, "file");
    tensor.dtype = Text(item, "dtype");
    for (const json& dim : Member(item, "shape", json::value_t::array, "an array")) {
      if (dim.is_number_unsigned() && dim.get<uint64_t>() <= kMaxDim) {
        tensor.shape.push_back(dim.get<int64_t>());
      } else {
        Fail(absl::StrCat("tensor '", Printable(name),
                          "': 'shape' holds something else than non-negative integers"));
      }
    }
  }
  return tensors;
}

}  // namespace hypermoe
