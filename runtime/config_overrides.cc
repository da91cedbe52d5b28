#include "runtime/config_overrides.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <vector>

#include "absl/strings/ascii.h"
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

// The section that holds the field at `path`, made if it is absent; nullptr if a list of sections
// is on the way.
Message* SectionOf(const std::string& path, Message* message) {
  std::vector<std::string> names = absl::StrSplit(path, '.');
  names.pop_back();
  for (const std::string& name : names) {
    const FieldDescriptor* section = message->GetDescriptor()->FindFieldByName(name);
    if (section->is_repeated()) return nullptr;
    message = message->GetReflection()->MutableMessage(message, section);
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

// How an item of the list of sections `list` is given in short: "PREFIX or PREFIX:WEIGHT".
std::string ItemForm(const FieldDescriptor& list) {
  const std::string first = absl::AsciiStrToUpper(list.message_type()->field(0)->name());
  const std::string second = absl::AsciiStrToUpper(list.message_type()->field(1)->name());
  return absl::StrCat(first, " or ", first, ":", second);
}

// Adds the section that "FIRST" or "FIRST:SECOND" stands for.
absl::Status AddItem(const std::string& item, const FieldDescriptor& list,
                     const std::string& source, Message* section) {
  Message* added = section->GetReflection()->AddMessage(section, &list);
  const std::vector<std::string> parts = absl::StrSplit(item, ':');
  bool good = parts.size() <= 2 && !parts[0].empty();
  for (size_t i = 0; good && i < parts.size(); ++i)
    good = PutValue(parts[i], *list.message_type()->field(static_cast<int>(i)), added);
  if (good) return absl::OkStatus();
  return ConfigError(absl::StrCat(
      source, ": cannot read '", item, "', an item is ", ItemForm(list),
      " and commas separate items; text that contains ',' or ':' can only be given in a "
      "configuration file: ",
      list.name(), " { ", list.message_type()->field(0)->name(), ": \"...\" }"));
}

absl::Status PutItem(const std::string& item, const std::string& path, const FieldDescriptor& field,
                     const std::string& source, Message* section) {
  if (field.message_type() != nullptr) return AddItem(item, field, source, section);
  if (PutValue(item, field, section)) return absl::OkStatus();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    return ConfigError(absl::StrCat(source, ": ", UnknownEnumText(path, field, item)));
  }
  return ConfigError(absl::StrCat(source, ": '", path, "' cannot be '", item, "', allowed is ",
                                  AllowedText(field)));
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
  if (field->message_type() != nullptr && !field->is_repeated()) {
    return ConfigError(absl::StrCat(source, ": '", path,
                                    "' is a section, not a value; set one of its fields, such as ",
                                    path, ".", field->message_type()->field(0)->name()));
  }
  Message* section = SectionOf(path, config);
  if (section == nullptr) {
    const std::string list = path.substr(0, path.rfind('.'));
    return ConfigError(
        absl::StrCat(source, ": '", path, "' is part of a list; set the list: ", list,
                     "=ITEM,ITEM,..., where an item is ", ItemForm(*FindField(list))));
  }
  section->GetReflection()->ClearField(section, field);
  std::vector<std::string> values = {value};
  if (field->is_repeated()) values = absl::StrSplit(value, ',');
  if (field->is_repeated() && value.empty()) values.clear();
  for (const std::string& item : values)
    RETURN_IF_ERROR(PutItem(item, path, *field, source, section));
  // The path of the section leads the message, so check from the top: what else is set has passed
  // before.
  return CheckRanges(*config, "", source);
}

}  // namespace hypermoe
