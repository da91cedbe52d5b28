#include "runtime/task_checks.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/config_fields.h"
#include "runtime/task.h"
#include "runtime/task_settings.h"
#include "runtime/text_decoder.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

using google::protobuf::Message;

struct Section {
  const Message& message;
  const char* path;
  std::vector<std::string> fields;
};

// The first field that is not what it is by default, as "data.folder is "x"", or "".
std::string FirstSet(const std::vector<Section>& sections) {
  for (const auto& [message, path, fields] : sections) {
    for (const std::string& name : fields) {
      const auto& field = *message.GetDescriptor()->FindFieldByName(name);
      const std::string value = ValueText(message, field);
      // A loaded configuration has every field, so what counts is whether it was changed.
      const std::unique_ptr<Message> plain(message.New());
      if (value != ValueText(*plain, field)) return absl::StrCat(path, ".", name, " is ", value);
    }
  }
  return "";
}

const std::vector<std::string>& DecodingFields() {
  static const auto* const fields = new std::vector<std::string>{
      "beams", "length_penalty", "no_repeat_ngram", "min_length", "max_length", "batch_size"};
  return *fields;
}

// What only the examples of a text-to-text task look at.
std::vector<Section> ExampleSections(const RunConfig& config) {
  return {{config.data(), "data", {"source_length", "target_length", "pad_to_length"}},
          {config.decoding(), "decoding", DecodingFields()}};
}

absl::Status CheckWithoutTask(const RunConfig& config) {
  std::vector<Section> sections = ExampleSections(config);
  sections.push_back({config.data(), "data", {"folder", "templates"}});
  sections.push_back({config.train(), "train", {"epochs", "patience", "keep_best"}});
  const std::string set = FirstSet(sections);
  if (set.empty()) return absl::OkStatus();
  return ConfigError(absl::StrCat(set,
                                  ", but data.task is not set, and only fine-tuning uses it: set "
                                  "data.task, as `hypermoe finetune --task` does, or remove it"));
}

// That what token files are cut and corrupted by is not set.
absl::Status CheckNoTokenFiles(const DataConfig& data) {
  const std::string set = FirstSet({Section{
      data,
      "data",
      {"train", "validation", "validation_fraction", "noise_density", "mean_span_length"}}});
  if (set.empty()) return absl::OkStatus();
  return ConfigError(absl::StrCat(set, ", but data.task is ", data.task(),
                                  ", which is trained and validated on its own files: remove it, "
                                  "or data.task"));
}

absl::Status CheckDecoding(const Task& task, const RunConfig& config) {
  const DecodingConfig& decoding = config.decoding();
  const BeamSearchOptions search = SearchOf(task, decoding);
  if (search.beams < 1) {
    return ConfigError("decoding.beams is 0: set it to at least 1, or to -1 for the task's");
  }
  if (search.max_length < 2) {
    return ConfigError("decoding.max_length is 0: set it to at least 1, or to -1 for the task's");
  }
  if (search.min_length > search.max_length) {
    return ConfigError(absl::StrCat(
        "decoding.min_length (", search.min_length - 1, ") must be at most decoding.max_length (",
        search.max_length - 1, ") for task ", config.data().task(), ": change either"));
  }
  if (search.beams == 1 && search.length_penalty != 1) {
    return ConfigError(absl::StrCat("decoding.length_penalty is ", search.length_penalty,
                                    ", but it chooses among several outputs, and decoding.beams "
                                    "is 1: raise that, or remove it"));
  }
  return absl::OkStatus();
}

absl::Status CheckValidations(const RunConfig& config) {
  const TrainConfig& train = config.train();
  if (train.patience() == 0 && !train.keep_best()) return absl::OkStatus();
  const std::string set = train.patience() > 0
                              ? absl::StrCat("train.patience is ", train.patience())
                              : "train.keep_best is set";
  if (train.validation_every() == 0) {
    return ConfigError(absl::StrCat(set,
                                    ", but train.validation_every is 0, so there is no validation "
                                    "before the last: set the steps between two"));
  }
  if (train.validation_windows() > 0) {
    return ConfigError(absl::StrCat(set, ", but train.validation_windows is ",
                                    train.validation_windows(),
                                    ", so that validations look at some examples and the last one "
                                    "at all, which cannot be compared: set it to 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTaskOfModel(const RunConfig& config) {
  const absl::StatusOr<const Task*> task = TaskNamed(config.data().task());
  if (!task.ok()) return ConfigError(absl::StrCat("data.task: ", task.status().message()));
  if (config.data().folder().empty()) {
    return ConfigError(absl::StrCat("data.folder is not set: give the folder with the files of ",
                                    config.data().task(), ", as --data DIR"));
  }
  const bool encoder = HasEncoder(config.model());
  if ((*task)->is_text() == encoder) {
    return ConfigError(absl::StrCat(
        "data.task ", config.data().task(), " needs a model ", encoder ? "without" : "with",
        " an encoder, but model.family is ", ModelConfig::Family_Name(config.model().family()),
        ": give a model of family ",
        ModelConfig::Family_Name(encoder ? ModelConfig::gpt2 : ModelConfig::switch_transformers),
        ", or another task"));
  }
  if ((*task)->is_text()) {
    const std::string set = FirstSet(ExampleSections(config));
    if (set.empty()) return absl::OkStatus();
    return ConfigError(absl::StrCat(set, ", but data.task ", config.data().task(),
                                    " is plain text, cut into rows of model.sequence_length and "
                                    "not decoded: remove it"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   MakeTokenizer(config.data().tokenizer()));
  RETURN_IF_ERROR(CheckEndId(*tokenizer, config));
  return CheckDecoding(**task, config);
}

absl::Status CheckTaskFields(const RunConfig& config) {
  if (config.data().task().empty()) return CheckWithoutTask(config);
  RETURN_IF_ERROR(CheckTaskOfModel(config));
  RETURN_IF_ERROR(CheckNoTokenFiles(config.data()));
  if (config.train().tokens() > 0 && HasEncoder(config.model())) {
    return ConfigError(absl::StrCat("train.tokens is ", config.train().tokens(),
                                    ", but the rows of data.task ", config.data().task(),
                                    " have no fixed length: set train.epochs or train.steps"));
  }
  return CheckValidations(config);
}

absl::Status CheckWarmup(const OptimizerConfig& optimizer) {
  if (optimizer.warmup_fraction() == 0 ||
      optimizer.warmup_steps() == OptimizerConfig::default_instance().warmup_steps())
    return absl::OkStatus();
  return ConfigError(absl::StrCat(
      "optimizer.warmup_steps is ", optimizer.warmup_steps(), ", but optimizer.warmup_fraction is ",
      optimizer.warmup_fraction(), " and says how many steps warm up: remove one of them"));
}

}  // namespace hypermoe
