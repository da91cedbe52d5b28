#include "runtime/golden_file.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/batch.h"
#include "model/config_values.h"
#include "runtime/fit_problems.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

constexpr int64_t kMaxBeams = 10000, kMaxDecoded = 65536;
constexpr char kGradient[] = "grad.";
constexpr char kIds[] = "input_ids", kLabels[] = "labels", kMask[] = "attention_mask";

absl::Status Bad(const std::string& path, const std::string& problem) {
  return DataError(absl::StrCat(Printable(path), ": ", problem));
}

absl::StatusOr<at::Tensor> ReadIds(const SafetensorsFile& file, const std::string& path,
                                   const std::string& name) {
  if (!file.contains(name)) {
    return Bad(path, absl::StrCat("has no ", name,
                                  ": a golden file holds input_ids and labels, of an "
                                  "encoder-decoder model attention_mask too"));
  }
  ASSIGN_OR_RETURN(const at::Tensor ids, file.Get(name));
  if (ids.scalar_type() != at::kLong || ids.dim() != 2 || ids.numel() == 0) {
    return Bad(path,
               absl::StrCat(name, " is ", SafetensorsDtype(ids.scalar_type()), " ",
                            ShapeText(ids.sizes()), ": expected I64 [rows, positions], not empty"));
  }
  return ids;
}

absl::Status CheckShapes(const GoldenFile& golden, const ModelConfig& model) {
  const at::Tensor &ids = golden.input_ids_BS, &labels = golden.labels_BT;
  const bool encoder = HasEncoder(model);
  if (encoder ? labels.size(0) != ids.size(0) : !labels.sizes().equals(ids.sizes())) {
    return Bad(golden.path,
               absl::StrCat("labels are ", ShapeText(labels.sizes()), " and input_ids ",
                            ShapeText(ids.sizes()), ": expected the same ",
                            encoder ? "number of rows" : "shape"));
  }
  // Relative positions, with an encoder, have no end.
  if (encoder || ids.size(1) <= model.sequence_length()) return absl::OkStatus();
  return Bad(golden.path, absl::StrCat("input_ids have ", ids.size(1),
                                       " positions: the model knows ", model.sequence_length()));
}

absl::Status CheckIds(const GoldenFile& golden, const ModelConfig& model) {
  const at::Tensor &ids = golden.input_ids_BS, &labels = golden.labels_BT;
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

absl::Status ReadMask(const SafetensorsFile& file, GoldenFile* golden) {
  ASSIGN_OR_RETURN(const at::Tensor mask, ReadIds(file, golden->path, kMask));
  if (!mask.sizes().equals(golden->input_ids_BS.sizes()) ||
      (mask < 0).logical_or(mask > 1).any().item<bool>()) {
    return Bad(golden->path, absl::StrCat(kMask, " is ", ShapeText(mask.sizes()),
                                          ": expected 0 or 1 for each of input_ids"));
  }
  golden->attention_mask_BS = mask.to(at::kBool);
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

// Hugging Face's generation settings that leave the result as it is where they have this value, or
// whatever they say (null): those of sampling, which is off, and of what is returned beside the
// ids. Any key that is neither here nor read could mean another result.
const std::map<std::string, nlohmann::json>& SettingsWithoutEffect() {
  using nlohmann::json;
  static const auto* const settings =
      new std::map<std::string, json>{{"do_sample", false},
                                      {"num_return_sequences", 1},
                                      {"num_beam_groups", 1},
                                      {"diversity_penalty", 0},
                                      {"repetition_penalty", 1},
                                      {"encoder_repetition_penalty", 1},
                                      {"encoder_no_repeat_ngram_size", 0},
                                      {"renormalize_logits", false},
                                      {"remove_invalid_values", false},
                                      {"temperature", nullptr},
                                      {"top_k", nullptr},
                                      {"top_p", nullptr},
                                      {"typical_p", nullptr},
                                      {"bos_token_id", nullptr},
                                      {"output_scores", nullptr},
                                      {"output_logits", nullptr},
                                      {"output_attentions", nullptr},
                                      {"output_hidden_states", nullptr},
                                      {"return_dict_in_generate", nullptr},
                                      {"transformers_version", nullptr},
                                      {"_from_model_config", nullptr}};
  return *settings;
}

// A setting that is null is one that is not given.
bool HasNoEffect(const std::string& key, const nlohmann::json& value) {
  const auto found = SettingsWithoutEffect().find(key);
  if (found == SettingsWithoutEffect().end()) return value.is_null();
  return value.is_null() || found->second.is_null() || value == found->second;
}

const std::set<std::string>& SettingsOf(bool encoder) {
  static const auto* const decoder_keys = new std::set<std::string>{
      "num_beams", "max_new_tokens", "prompt_length", "use_cache", "pad_token_id", "eos_token_id"};
  static const auto* const encoder_keys = new std::set<std::string>{
      "num_beams",      "max_length",     "max_new_tokens", "min_length",
      "min_new_tokens", "length_penalty", "early_stopping", "no_repeat_ngram_size",
      "use_cache",      "pad_token_id",   "eos_token_id",   "decoder_start_token_id"};
  return encoder ? *encoder_keys : *decoder_keys;
}

// Reads one setting of a decoding; `json` is an object.
template <typename T>
bool ReadSetting(const nlohmann::json& json, const char* key, bool required, T* value) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return !required;
  if constexpr (std::is_same_v<T, bool>) {
    if (!found->is_boolean()) return false;
  } else if constexpr (std::is_same_v<T, double>) {
    if (!found->is_number()) return false;
  } else {
    if (!found->is_number_integer() ||
        (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX))
      return false;
  }
  *value = found->get<T>();
  return true;
}

bool ReadEarlyStopping(const nlohmann::json& json, EarlyStopping* value) {
  const nlohmann::json early = json.value("early_stopping", nlohmann::json(false));
  if (early == "never") *value = EarlyStopping::kNever;
  if (early == "never" || early.is_null()) return true;
  if (early.is_boolean()) *value = early.get<bool>() ? EarlyStopping::kYes : EarlyStopping::kNo;
  return early.is_boolean();
}

// "max_length", which counts the start token, or before it "max_new_tokens", which does not; "min_"
// likewise.
bool ReadLength(const nlohmann::json& json, const std::string& which, bool required,
                int64_t* value) {
  int64_t added = -1;
  if (!ReadSetting(json, (which + "_new_tokens").c_str(), false, &added)) return false;
  if (!ReadSetting(json, (which + "_length").c_str(), required && added < 0, value)) return false;
  if (added >= 0) *value = std::min<int64_t>(added, kMaxDecoded) + 1;
  return true;
}

bool ParseDecoding(const std::string& text, bool encoder, GoldenDecoding* decoding) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  for (const auto& [key, value] : json.items()) {
    if (!SettingsOf(encoder).contains(key) && !HasNoEffect(key, value)) return false;
  }
  const bool common = ReadSetting(json, "num_beams", false, &decoding->beams) &&
                      ReadSetting(json, "use_cache", false, &decoding->cached) &&
                      ReadSetting(json, "eos_token_id", false, &decoding->end_id) &&
                      ReadSetting(json, "pad_token_id", false, &decoding->pad_id);
  if (!encoder) {
    return common && decoding->beams == 1 &&
           ReadSetting(json, "max_new_tokens", true, &decoding->new_tokens) &&
           ReadSetting(json, "prompt_length", true, &decoding->prompt_length);
  }
  return common && ReadEarlyStopping(json, &decoding->early_stopping) &&
         ReadLength(json, "max", true, &decoding->max_length) &&
         ReadLength(json, "min", false, &decoding->min_length) &&
         ReadSetting(json, "length_penalty", false, &decoding->length_penalty) &&
         ReadSetting(json, "no_repeat_ngram_size", false, &decoding->no_repeat_ngram) &&
         ReadSetting(json, "decoder_start_token_id", false, &decoding->start_id);
}

absl::Status CheckTokens(const GoldenFile& golden, const ModelConfig& model,
                         const GoldenDecoding& decoding) {
  for (const int64_t id : {decoding.start_id, decoding.end_id, decoding.pad_id}) {
    if (id >= 0 && id < model.vocab_size()) continue;
    return Bad(golden.path, absl::StrCat(decoding.entry, " names the token ", id,
                                         ": expected ids from 0 to ", model.vocab_size() - 1));
  }
  return absl::OkStatus();
}

// That the lengths and tokens of a decoding are possible.
absl::Status CheckLengths(const GoldenFile& golden, const ModelConfig& model,
                          const GoldenDecoding& decoding) {
  if (HasEncoder(model)) {
    if (decoding.beams >= 1 && decoding.beams <= kMaxBeams && decoding.max_length >= 2 &&
        decoding.max_length <= kMaxDecoded && decoding.min_length >= 0 &&
        decoding.no_repeat_ngram >= 0 && decoding.width <= decoding.max_length)
      return CheckTokens(golden, model, decoding);
    return Bad(golden.path,
               absl::StrCat(decoding.entry, " is ", decoding.width, " ids wide, with ",
                            decoding.beams, " beams and max_length ", decoding.max_length,
                            ": expected 1 to ", kMaxBeams, " beams, a max_length from 2 to ",
                            kMaxDecoded, ", a row no wider, and no number below 0"));
  }
  // The last token is never an input.
  const int64_t prompt = decoding.prompt_length, added = decoding.new_tokens;
  if (prompt >= 1 && prompt <= golden.input_ids_BS.size(1) && added >= 1 &&
      added <= model.sequence_length() + 1 - prompt)
    return absl::OkStatus();
  return Bad(golden.path,
             absl::StrCat(decoding.entry, " adds ", added, " tokens to prompts of ", prompt,
                          ": the rows of input_ids have ", golden.input_ids_BS.size(1),
                          " and the model knows ", model.sequence_length(), " positions"));
}

absl::Status AddDecoding(const SafetensorsFile& file, const ModelConfig& model,
                         const std::string& entry, GoldenFile* golden) {
  GoldenDecoding decoding;
  decoding.entry = entry;
  decoding.cached = entry != "tokens.greedy_nocache";
  decoding.start_id = model.decoder_start_id();
  decoding.end_id = HasEncoder(model) ? model.end_id() : -1;
  decoding.pad_id = model.pad_id();
  const auto settings = file.metadata().find(entry);
  if (settings == file.metadata().end() ||
      !ParseDecoding(settings->second, HasEncoder(model), &decoding)) {
    return Bad(
        golden->path,
        absl::StrCat(
            "its header's ", entry, " is '",
            settings == file.metadata().end() ? "" : Printable(settings->second), "': expected ",
            HasEncoder(model)
                ? "a JSON object with max_length or max_new_tokens and at most num_beams, "
                  "min_length, min_new_tokens, length_penalty, no_repeat_ngram_size, "
                  "early_stopping: false, true or \"never\", use_cache, pad_token_id, "
                  "eos_token_id, decoder_start_token_id, and settings of Hugging Face that change "
                  "nothing, such as do_sample: false"
                : "a JSON object with max_new_tokens, prompt_length and at most num_beams: 1, "
                  "use_cache, pad_token_id, eos_token_id, and settings of Hugging Face that change "
                  "nothing, such as "
                  "do_sample: false"));
  }
  const at::Tensor& ids = golden->entries.at(entry);
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong) {
    return Bad(golden->path, absl::StrCat(entry, " is ", SafetensorsDtype(ids.scalar_type()), " ",
                                          ShapeText(ids.sizes()), ": expected I64 [rows, ids]"));
  }
  decoding.width = ids.size(1);
  RETURN_IF_ERROR(CheckLengths(*golden, model, decoding));
  golden->decodings.push_back(decoding);
  return absl::OkStatus();
}

absl::Status AddDecodings(const SafetensorsFile& file, const ModelConfig& model,
                          GoldenFile* golden) {
  for (const auto& [name, tensor] : golden->entries) {
    const bool greedy = name == "tokens.greedy" || name == "tokens.greedy_nocache";
    if (greedy || (HasEncoder(model) && absl::StartsWith(name, "tokens.")))
      RETURN_IF_ERROR(AddDecoding(file, model, name, golden));
  }
  return absl::OkStatus();
}

absl::Status ReadEntries(const SafetensorsFile& file, GoldenFile* golden) {
  ASSIGN_OR_RETURN(const c10::ScalarType dtype, HeaderDtype(file, golden->path));
  for (const std::string& name : file.names()) {
    if (name == kIds || name == kLabels) continue;
    if (name == kMask && golden->attention_mask_BS.defined()) continue;
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
  ASSIGN_OR_RETURN(golden.input_ids_BS, ReadIds(*file, path, kIds));
  ASSIGN_OR_RETURN(golden.labels_BT, ReadIds(*file, path, kLabels));
  RETURN_IF_ERROR(CheckShapes(golden, model));
  RETURN_IF_ERROR(CheckIds(golden, model));
  if (HasEncoder(model)) RETURN_IF_ERROR(ReadMask(*file, &golden));
  RETURN_IF_ERROR(ReadEntries(*file, &golden));
  RETURN_IF_ERROR(AddDecodings(*file, model, &golden));
  return golden;
}

}  // namespace hypermoe
