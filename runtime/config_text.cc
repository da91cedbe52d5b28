#include "runtime/config_text.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <optional>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/config_fields.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::io::Tokenizer;

constexpr int kMaxNesting = 64;

// Lines and columns count from 0, as protobuf reports them.
struct Position {
  int line = 0;
  int column = 0;
};

struct ParseError {
  Position at;
  std::string message;
};

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (!error_) error_ = ParseError{{line, column}, message};
  }
  const std::optional<ParseError>& error() const { return error_; }

 private:
  std::optional<ParseError> error_;
};

struct Word {
  Position at;
  std::string text;
};

// What stands before a position of a text: the names that lead to the field being read, and that
// field's value.
struct Context {
  std::vector<Word> names;  // of the open sections and, last, of the field
  Word value;               // the latest token after the field's ':'; text "" if there is none
  bool at_value = false;    // the position is where a value is expected
};

// protobuf reports an error without the field's path; its own tokenizer finds the path again.
Context ContextAt(const std::string& text, const Position& end) {
  google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  FirstError ignored;
  Tokenizer tokenizer(&stream, &ignored);
  tokenizer.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
  tokenizer.set_allow_f_after_float(true);
  tokenizer.set_require_space_after_number(false);
  std::vector<Word> open;
  Word field, value;
  bool in_value = false, in_list = false, after_value = false;
  while (tokenizer.Next()) {
    const Tokenizer::Token& token = tokenizer.current();
    if (std::tie(token.line, token.column) >= std::tie(end.line, end.column)) break;
    const Word word{{token.line, token.column}, token.text};
    if (word.text == "{" || word.text == "<") {
      open.push_back(field);
      in_value = in_list = false;
    } else if (word.text == "}" || word.text == ">") {
      if (!open.empty()) open.pop_back();
      in_value = in_list = false;
    } else if (word.text == ":") {
      in_value = true;
      after_value = false;
    } else if (word.text == "[" || word.text == "]") {
      in_list = word.text == "[";
      after_value = !in_list;
    } else if (word.text == "," || word.text == ";") {
      after_value = !in_list;
    } else if (in_value && !after_value) {
      value = word;
      after_value = word.text != "-";
    } else if (token.type == Tokenizer::TYPE_IDENTIFIER) {
      field = word;
      value = Word();
      in_value = false;
    }
  }
  Context context{open, value, in_value && !after_value};
  context.names.push_back(field);
  return context;
}

std::string Where(const std::string& source, const Position& at) {
  return absl::StrCat(source, ":", at.line + 1, ":", at.column + 1, ": ");
}

absl::Status Explain(const std::string& text, const std::string& source, const ParseError& error) {
  const Context context = ContextAt(text, error.at);
  std::string path;
  const FieldDescriptor* field = nullptr;
  for (const Word& name : context.names) {
    path = JoinPath(path, name.text);
    field = FindField(path);
    if (field == nullptr && !name.text.empty()) {
      return ConfigError(Where(source, name.at) + UnknownFieldText(path));
    }
  }
  if (field != nullptr && field->enum_type() != nullptr && !context.value.text.empty() &&
      field->enum_type()->FindValueByName(context.value.text) == nullptr) {
    return ConfigError(Where(source, context.value.at) +
                       UnknownEnumText(path, *field, context.value.text));
  }
  if (field != nullptr && context.at_value) {
    return ConfigError(absl::StrCat(Where(source, error.at), "'", path, "': ", error.message,
                                    "; allowed is ", AllowedText(*field)));
  }
  const std::string place = field != nullptr ? absl::StrCat(" (at '", path, "')") : "";
  return ConfigError(absl::StrCat(Where(source, error.at), error.message, place));
}

}  // namespace

absl::StatusOr<RunConfig> ReadConfigText(const std::string& text, const std::string& source) {
  if (text.size() > kMaxConfigBytes) {
    return ConfigError(
        absl::StrCat(source, " is longer than ", kMaxConfigBytes,
                     " bytes, the most that a configuration may have: give a text such as "
                     "configs/debug.textproto"));
  }
  RunConfig config;
  FirstError errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.SetRecursionLimit(kMaxNesting);
  if (!parser.ParseFromString(text, &config)) {
    return Explain(text, source, errors.error().value_or(ParseError{{}, "not a configuration"}));
  }
  RETURN_IF_ERROR(CheckRanges(config, "", source));
  return config;
}

}  // namespace hypermoe
