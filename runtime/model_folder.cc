#include "runtime/model_folder.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_files.h"
#include "runtime/model_folder_layout.h"
#include "runtime/model_folder_names.h"
#include "runtime/model_folder_tensors.h"

namespace hypermoe {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kSentencePiece[] = "spiece.model";
constexpr size_t kMaxConfigBytes = 1 << 20;

absl::StatusOr<std::string> ReadConfigText(const std::string& dir, std::string* path) {
  ASSIGN_OR_RETURN(const auto file, MapFolderFile(dir, kConfig));
  *path = file->path();
  if (file->size() > kMaxConfigBytes) {
    return DataError(absl::StrCat(Printable(*path), ": has ", file->size(), " bytes, at most ",
                                  kMaxConfigBytes, " are read"));
  }
  return std::string(file->data(), file->size());
}

}  // namespace

bool IsModelFolder(const std::string& path) { return HasFolderFile(path, kConfig); }

absl::StatusOr<ModelFolder> OpenModelFolder(const std::string& dir) {
  std::error_code error;
  if (!std::filesystem::is_directory(dir, error))
    return IoError(absl::StrCat("model folder ", Printable(dir), ": no such folder"));
  ModelFolder folder;
  std::string path;
  ASSIGN_OR_RETURN(folder.config_json, ReadConfigText(dir, &path));
  ASSIGN_OR_RETURN(folder.config, ReadFolderConfig(path, folder.config_json));
  ASSIGN_OR_RETURN(folder.tensors, OpenFolderTensors(dir, folder.config.model()));
  // Before anything is made of the sizes that the configuration gives, which may be any.
  RETURN_IF_ERROR(CheckFolderTensors(absl::StrCat("model folder ", Printable(dir)), folder));
  if (folder.tensors->entries().at(EmbeddingName(folder.config.model())).dtype == c10::kDouble)
    folder.config.mutable_runtime()->set_dtype(RuntimeConfig::float64);
  if (HasFolderFile(dir, "vocab.json") && HasFolderFile(dir, "merges.txt"))
    folder.config.mutable_data()->set_tokenizer("gpt2:" + dir);
  if (HasFolderFile(dir, kSentencePiece))
    folder.config.mutable_data()->set_tokenizer(absl::StrCat("spm:", dir, "/", kSentencePiece));
  return folder;
}

absl::Status CheckFolderTensors(const std::string& where, const ModelFolder& model) {
  return CheckEntries(
      *model.tensors,
      absl::StrCat(where, " does not hold the tensors that its configuration calls for"),
      [&](const TensorVisitor& visit) { ForEachFolderTensor(model.config, visit); });
}

}  // namespace hypermoe
