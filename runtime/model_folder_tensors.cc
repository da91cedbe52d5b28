#include "runtime/model_folder_tensors.h"

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/fit_problems.h"
#include "runtime/model_folder_files.h"
#include "runtime/model_folder_names.h"
#include "runtime/safetensors.h"
#include "runtime/strict_json.h"

namespace hypermoe {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 100'000'000;  // as much as a file's own header may have

using ShardFile = std::shared_ptr<const SafetensorsFile>;

class FolderTensors : public TensorSource {
 public:
  struct Place {
    ShardFile file;
    std::string name;  // in the file
  };

  explicit FolderTensors(std::string folder) : folder_(std::move(folder)) {}

  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override {
    const auto found = places_.find(name);
    if (found == places_.end()) {
      return DataError(absl::StrCat("model folder ", Printable(folder_), " has no tensor '",
                                    Printable(name), "'"));
    }
    return found->second.file->Get(found->second.name);
  }

  // False if the name is there already.
  bool Add(const std::string& name, TensorEntry entry, Place place) {
    entries_[name] = std::move(entry);
    return places_.emplace(name, std::move(place)).second;
  }

 private:
  std::string folder_;
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, Place> places_;
};

class FolderOpener {
 public:
  FolderOpener(const std::string& folder, const ModelConfig& model)
      : folder_(folder),
        model_(model),
        what_(absl::StrCat("model folder ", Printable(folder))),
        problems_(kMostFitProblems),
        tensors_(std::make_shared<FolderTensors>(folder)) {}

  absl::StatusOr<std::shared_ptr<const TensorSource>> Open() {
    const bool single = HasFolderFile(folder_, kSingleFile), index = HasFolderFile(folder_, kIndex);
    if (single && index) {
      return DataError(absl::StrCat(what_, " holds both ", kSingleFile, " and ", kIndex,
                                    ": remove the one that is not meant"));
    }
    if (!single && !index) return NoTensors();
    if (single) {
      RETURN_IF_ERROR(OpenSingleFile());
    } else {
      RETURN_IF_ERROR(OpenShards());
    }
    RETURN_IF_ERROR(problems_.ToStatus(absl::StrCat(what_, " cannot be read")));
    RETURN_IF_ERROR(AddEmbeddings());
    RETURN_IF_ERROR(CheckCopies());
    return tensors_;
  }

 private:
  absl::Status NoTensors() const {
    const std::string pickle = FindPickle(folder_);
    if (pickle.empty()) {
      return DataError(absl::StrCat(what_, " holds neither ", kSingleFile, " nor ", kIndex));
    }
    return DataError(absl::StrCat(
        what_, " holds ", Printable(pickle), " but no ", kSingleFile,
        ": pickle files can run code when they are read, so they are not. Convert it where you "
        "trust it: python3 -c \"from transformers import ",
        HasEncoder(model_) ? "AutoModelForSeq2SeqLM" : "AutoModelForCausalLM",
        " as M; "
        "M.from_pretrained('",
        Printable(folder_), "').save_pretrained('OUTPUT', safe_serialization=True)\""));
  }

  absl::StatusOr<ShardFile> OpenFile(const std::string& name) const {
    ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MapFolderFile(folder_, name));
    return SafetensorsFile::Open(std::move(file));
  }

  absl::Status OpenSingleFile() {
    ASSIGN_OR_RETURN(const ShardFile file, OpenFile(kSingleFile));
    for (const std::string& name : file->names()) AddTensor(file, name);
    return absl::OkStatus();
  }

  absl::Status OpenShards() {
    ASSIGN_OR_RETURN(const auto shard_of, ReadIndex());
    std::map<std::string, ShardFile> shards;
    for (const auto& [tensor, shard] : shard_of) {
      if (shards.contains(shard)) continue;
      ASSIGN_OR_RETURN(shards[shard], OpenFile(shard));
    }
    for (const auto& [tensor, shard] : shard_of) {
      if (!shards[shard]->contains(tensor)) {
        problems_.Add(absl::StrCat("tensor '", Printable(tensor), "' is not in ", Printable(shard),
                                   ", where the index says"));
      }
    }
    for (const auto& [shard, file] : shards) {
      for (const std::string& name : file->names()) {
        const auto listed = shard_of.find(name);
        if (listed == shard_of.end()) {
          problems_.Add(absl::StrCat("tensor '", Printable(name), "' of ", Printable(shard),
                                     " is not in the index"));
        } else if (listed->second != shard) {
          problems_.Add(absl::StrCat("tensor '", Printable(name), "' is in ", Printable(shard),
                                     " too, not only where the index says"));
        } else {
          AddTensor(file, name);
        }
      }
    }
    return absl::OkStatus();
  }

  // The shard of each tensor.
  absl::StatusOr<std::map<std::string, std::string>> ReadIndex() const {
    ASSIGN_OR_RETURN(const auto file, MapFolderFile(folder_, kIndex));
    const auto refuse = [&](const std::string& reason) {
      return DataError(absl::StrCat(Printable(file->path()), ": ", reason));
    };
    if (file->size() > kMaxIndexBytes)
      return refuse(
          absl::StrCat("has ", file->size(), " bytes, at most ", kMaxIndexBytes, " are read"));
    ASSIGN_OR_RETURN(const nlohmann::json index,
                     ParseStrictJson(file->path(), {file->data(), file->size()}));
    const auto weight_map = index.find("weight_map");
    if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty())
      return refuse("'weight_map' is not an object that names a shard for each tensor");
    std::map<std::string, std::string> shard_of;
    for (const auto& [tensor, shard] : weight_map->items()) {
      if (!shard.is_string()) {
        return refuse(absl::StrCat("'weight_map' gives tensor '", Printable(tensor), "' ",
                                   Printable(shard.dump()), ", expected a file name"));
      }
      shard_of[tensor] = shard.get<std::string>();
      if (!absl::EndsWith(shard_of[tensor], ".safetensors")) {
        return refuse(
            absl::StrCat("shard '", Printable(shard_of[tensor]), "' is not a .safetensors file"));
      }
    }
    return shard_of;
  }

  void AddTensor(const ShardFile& file, const std::string& name) {
    const FolderTensor tensor = TensorOfFolder(model_, name);
    if (tensor.use == FolderTensor::Use::kNone) return;
    absl::StatusOr<TensorEntry> entry = file->Entry(name);
    if (!entry.ok()) return problems_.Add(std::string(entry.status().message()));
    if (!c10::isFloatingType(entry->dtype)) {
      return problems_.Misfit(name, SafetensorsDtype(entry->dtype), "F32, F64, F16 or BF16");
    }
    if (tensor.use == FolderTensor::Use::kCopy) {
      copies_.push_back({{file, name}, tensor.name});
    } else if (tensor.use == FolderTensor::Use::kOtherwise) {
      otherwise_ = {file, name};
    } else if (!tensors_->Add(tensor.name, *std::move(entry), {file, name})) {
      problems_.Add(absl::StrCat("tensor '", Printable(tensor.name), "' is there twice, as '",
                                 Printable(name), "' too"));
    }
  }

  absl::Status AddEmbeddings() {
    if (otherwise_.file == nullptr) return absl::OkStatus();
    for (const std::string& name : UntiedEmbeddings()) {
      if (tensors_->entries().contains(name)) continue;
      ASSIGN_OR_RETURN(TensorEntry entry, otherwise_.file->Entry(otherwise_.name));
      tensors_->Add(name, std::move(entry), otherwise_);
    }
    return absl::OkStatus();
  }

  // That tied tensors are equal. Compared here because only what is stored once is kept.
  absl::Status CheckCopies() const {
    for (const auto& [place, parameter] : copies_) {
      // One that is missing is an error of its own.
      if (!tensors_->entries().contains(parameter)) continue;
      ASSIGN_OR_RETURN(const at::Tensor copy, place.file->Get(place.name));
      ASSIGN_OR_RETURN(const at::Tensor value, tensors_->Read(parameter));
      if (copy.scalar_type() == value.scalar_type() && copy.sizes() == value.sizes() &&
          std::memcmp(copy.const_data_ptr(), value.const_data_ptr(), copy.nbytes()) == 0) {
        continue;
      }
      return DataError(absl::StrCat(
          what_, ": tensor '", Printable(place.name), "' differs from '", parameter, "': ",
          HasEncoder(model_) ? "they must be equal where 'tie_word_embeddings' is not false"
                             : "models whose head is not their token embedding are not supported"));
    }
    return absl::OkStatus();
  }

  const std::string& folder_;
  const ModelConfig& model_;
  std::string what_;
  FitProblems problems_;
  std::shared_ptr<FolderTensors> tensors_;
  std::vector<std::pair<FolderTensors::Place, std::string>> copies_;  // and their parameters
  FolderTensors::Place otherwise_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const TensorSource>> OpenFolderTensors(const std::string& folder,
                                                                      const ModelConfig& model) {
  return FolderOpener(folder, model).Open();
}

}  // namespace hypermoe
