#include "runtime/config_overrides.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/config_fields.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// The caller's message says more than protobuf's, which would otherwise go to stderr.
class Silent : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override {}
};

// The section that holds the field at `path`, made if it is absent.
Message* SectionOf(const std::string& path, Message* message) {
  std::vector<std::string> names = absl::StrSplit(path, '.');
  names.pop_back();
  for (const std::string& name : names) {
    message = message->GetReflection()->MutableMessage(
        message, message->GetDescriptor()->FindFieldByName(name));
  }
  return message;
}

// Sets or, for a repeated field, adds.
bool PutValue(const std::string& value, const FieldDescriptor& field, Message* section) {
  const Reflection& set = *section->GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    if (field.is_repeated()) {
      set.AddString(section, &field, value);
    } else {
      set.SetString(section, &field, value);
    }
    return true;
  }
  Silent silent;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&silent);
  return parser.ParseFieldValueFromString(value, &field, section);
}

}  // namespace

absl::Status ApplyOverride(const std::string& assignment, RunConfig* config) {
  const std::string source = absl::StrCat("--set ", assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    return ConfigError(absl::StrCat(
        source, ": there is no '='; give it as PATH=VALUE, such as model.num_layers=4"));
  }
  const std::string path = assignment.substr(0, equals);
  const std::string value = assignment.substr(equals + 1);
  const FieldDescriptor* field = FindField(path);
  if (field == nullptr) return ConfigError(absl::StrCat(source, ": ", UnknownFieldText(path)));
  if (field->message_type() != nullptr) {
    return ConfigError(absl::StrCat(source, ": '", path,
                                    "' is a section, not a value; set one of its fields, such as ",
                                    path, ".", field->message_type()->field(0)->name()));
  }
  Message* section = SectionOf(path, config);
  section->GetReflection()->ClearField(section, field);
  std::vector<std::string> values = {value};
  if (field->is_repeated()) values = absl::StrSplit(value, ',');
  if (field->is_repeated() && value.empty()) values.clear();
  for (const std::string& item : values) {
    if (PutValue(item, *field, section)) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      return ConfigError(absl::StrCat(source, ": ", UnknownEnumText(path, *field, item)));
    }
    return ConfigError(absl::StrCat(source, ": '", path, "' cannot be '", item, "', allowed is ",
                                    AllowedText(*field)));
  }
  // The path of the section leads the message, so check from the top: what else is set has passed
  // before.
  return CheckRanges(*config, "", source);
}

}  // namespace hypermoe
