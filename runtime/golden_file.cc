#include "runtime/golden_file.h"

#include <ATen/TensorOperators.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/batch.h"
#include "runtime/fit_problems.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

constexpr char kGradient[] = "grad.";

absl::Status Bad(const std::string& path, const std::string& problem) {
  return DataError(absl::StrCat(Printable(path), ": ", problem));
}

absl::StatusOr<at::Tensor> ReadIds(const SafetensorsFile& file, const std::string& path,
                                   const std::string& name) {
  if (!file.contains(name)) {
    return Bad(path, absl::StrCat("has no ", name, ": a golden file holds input_ids and labels"));
  }
  ASSIGN_OR_RETURN(const at::Tensor ids, file.Get(name));
  if (ids.scalar_type() != at::kLong || ids.dim() != 2 || ids.numel() == 0) {
    return Bad(path,
               absl::StrCat(name, " is ", SafetensorsDtype(ids.scalar_type()), " ",
                            ShapeText(ids.sizes()), ": expected I64 [rows, positions], not empty"));
  }
  return ids;
}

absl::Status CheckInputs(const GoldenFile& golden, const ModelConfig& model) {
  const at::Tensor &ids = golden.input_ids_BS, &labels = golden.labels_BS;
  if (!labels.sizes().equals(ids.sizes())) {
    return Bad(golden.path,
               absl::StrCat("labels are ", ShapeText(labels.sizes()), " and input_ids ",
                            ShapeText(ids.sizes()), ": expected the same shape"));
  }
  if (ids.size(1) > model.sequence_length()) {
    return Bad(golden.path, absl::StrCat("input_ids have ", ids.size(1),
                                         " positions: the model knows ", model.sequence_length()));
  }
  const auto outside = [&](const at::Tensor& values) {
    return (values < 0).logical_or(values >= int64_t{model.vocab_size()});
  };
  if (outside(ids).any().item<bool>() ||
      outside(labels).logical_and(labels != kIgnoredLabel).any().item<bool>()) {
    return Bad(golden.path, absl::StrCat("input_ids or labels hold an id outside 0 .. ",
                                         model.vocab_size() - 1, ", the model's vocabulary"));
  }
  return absl::OkStatus();
}

absl::StatusOr<c10::ScalarType> HeaderDtype(const SafetensorsFile& file, const std::string& path) {
  const auto found = file.metadata().find("dtype");
  if (found != file.metadata().end()) {
    if (found->second == "float64") return at::kDouble;
    if (found->second == "float32") return at::kFloat;
  }
  return Bad(path, absl::StrCat("its header gives ",
                                found == file.metadata().end()
                                    ? "no \"dtype\""
                                    : "\"dtype\": \"" + Printable(found->second) + "\"",
                                ": expected float64 or float32, in which it was computed"));
}

// Reads one setting of a decoding; `json` is an object.
template <typename T>
bool ReadSetting(const nlohmann::json& json, const char* key, bool required, T* value) {
  const auto found = json.find(key);
  if (found == json.end()) return !required;
  if constexpr (std::is_same_v<T, bool>) {
    if (!found->is_boolean()) return false;
  } else {
    if (!found->is_number_integer() ||
        (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX))
      return false;
  }
  *value = found->get<T>();
  return true;
}

// The settings of `entry`, which must be greedy: any other key could mean another result.
bool ParseDecoding(const std::string& text, GoldenDecoding* decoding) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  for (const auto& [key, value] : json.items()) {
    if (key != "do_sample" && key != "num_beams" && key != "max_new_tokens" &&
        key != "prompt_length" && key != "use_cache")
      return false;
  }
  bool sample = false;
  int64_t beams = 1;
  return ReadSetting(json, "do_sample", false, &sample) && !sample &&
         ReadSetting(json, "num_beams", false, &beams) && beams == 1 &&
         ReadSetting(json, "max_new_tokens", true, &decoding->new_tokens) &&
         ReadSetting(json, "prompt_length", true, &decoding->prompt_length) &&
         ReadSetting(json, "use_cache", false, &decoding->cached);
}

absl::Status AddDecoding(const SafetensorsFile& file, const ModelConfig& model,
                         const std::string& entry, GoldenFile* golden) {
  if (!golden->entries.contains(entry)) return absl::OkStatus();
  GoldenDecoding decoding;
  decoding.entry = entry;
  decoding.cached = entry != "tokens.greedy_nocache";
  const auto settings = file.metadata().find(entry);
  if (settings == file.metadata().end() || !ParseDecoding(settings->second, &decoding)) {
    return Bad(golden->path,
               absl::StrCat("its header's ", entry, " is '",
                            settings == file.metadata().end() ? "" : Printable(settings->second),
                            "': expected a JSON object with max_new_tokens, prompt_length and at "
                            "most do_sample: false, num_beams: 1, use_cache"));
  }
  // The last token is never an input.
  const int64_t prompt = decoding.prompt_length, added = decoding.new_tokens;
  if (prompt < 1 || prompt > golden->input_ids_BS.size(1) || added < 1 ||
      added > model.sequence_length() + 1 - prompt) {
    return Bad(golden->path,
               absl::StrCat(entry, " adds ", added, " tokens to prompts of ", prompt,
                            ": the rows of input_ids have ", golden->input_ids_BS.size(1),
                            " and the model knows ", model.sequence_length(), " positions"));
  }
  golden->decodings.push_back(decoding);
  return absl::OkStatus();
}

absl::Status ReadEntries(const SafetensorsFile& file, GoldenFile* golden) {
  ASSIGN_OR_RETURN(const c10::ScalarType dtype, HeaderDtype(file, golden->path));
  for (const std::string& name : file.names()) {
    if (name == "input_ids" || name == "labels") continue;
    ASSIGN_OR_RETURN(at::Tensor tensor, file.Get(name));
    if (tensor.is_floating_point() && tensor.scalar_type() != dtype) {
      return Bad(golden->path,
                 absl::StrCat("'", Printable(name), "' is ", SafetensorsDtype(tensor.scalar_type()),
                              ", its header says ", SafetensorsDtype(dtype)));
    }
    std::string key = name;
    if (absl::StartsWith(name, kGradient)) {
      key = absl::StrCat(kGradient,
                         absl::StripPrefix(absl::StripPrefix(name, kGradient), "transformer."));
    }
    if (!golden->entries.emplace(key, std::move(tensor)).second)
      return Bad(golden->path, absl::StrCat("holds '", Printable(key), "' twice"));
  }
  if (golden->entries.empty()) return Bad(golden->path, "holds inputs only: nothing to compare");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GoldenFile> OpenGoldenFile(const std::string& path, const ModelConfig& model) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsFile> file, SafetensorsFile::Open(path));
  GoldenFile golden;
  golden.path = path;
  ASSIGN_OR_RETURN(golden.input_ids_BS, ReadIds(*file, path, "input_ids"));
  ASSIGN_OR_RETURN(golden.labels_BS, ReadIds(*file, path, "labels"));
  RETURN_IF_ERROR(CheckInputs(golden, model));
  RETURN_IF_ERROR(ReadEntries(*file, &golden));
  for (const char* entry : {"tokens.greedy", "tokens.greedy_nocache"})
    RETURN_IF_ERROR(AddDecoding(*file, model, entry, &golden));
  return golden;
}

}  // namespace hypermoe
