#include "runtime/config_fields.h"

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "configs/run.pb.h"
#include "runtime/nearest_name.h"

namespace hypermoe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void AddPaths(const Descriptor& section, const std::string& path, std::vector<std::string>* paths) {
  for (int i = 0; i < section.field_count(); ++i) {
    const FieldDescriptor& field = *section.field(i);
    const std::string field_path = JoinPath(path, field.name());
    paths->push_back(field_path);
    if (field.message_type() != nullptr) AddPaths(*field.message_type(), field_path, paths);
  }
}

std::string LastName(const std::string& path) { return path.substr(path.rfind('.') + 1); }

std::string NearestField(const std::string& path) {
  std::vector<std::string> paths;
  AddPaths(*RunConfig::descriptor(), "", &paths);
  std::string nearest;
  int smallest = std::numeric_limits<int>::max();
  for (const std::string& candidate : paths) {
    const int distance = std::min(EditDistance(path, candidate),
                                  1 + EditDistance(LastName(path), LastName(candidate)));
    if (distance < smallest) {
      smallest = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::vector<std::string> EnumNames(const FieldDescriptor& field) {
  std::vector<std::string> names;
  for (int i = 0; i < field.enum_type()->value_count(); ++i)
    names.push_back(field.enum_type()->value(i)->name());
  return names;
}

bool IsFloating(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE ||
         field.cpp_type() == FieldDescriptor::CPPTYPE_FLOAT;
}

std::string BoundText(double bound, const FieldDescriptor& field) {
  return IsFloating(field) ? absl::StrCat(bound) : absl::StrCat(static_cast<int64_t>(bound));
}

// Element `index` of a repeated field, or the value of any other; 0 for what is not a number.
double NumberAt(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& get = *message.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return repeated ? get.GetRepeatedInt32(message, &field, index)
                      : get.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return repeated ? get.GetRepeatedInt64(message, &field, index)
                      : get.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return repeated ? get.GetRepeatedUInt32(message, &field, index)
                      : get.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return repeated ? get.GetRepeatedUInt64(message, &field, index)
                      : get.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return repeated ? get.GetRepeatedDouble(message, &field, index)
                      : get.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return repeated ? get.GetRepeatedFloat(message, &field, index)
                      : get.GetFloat(message, &field);
    default:
      return 0;
  }
}

void FillDefault(Message* message, const FieldDescriptor& field) {
  const Reflection& set = *message->GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return set.SetInt32(message, &field, field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return set.SetInt64(message, &field, field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT32:
      return set.SetUInt32(message, &field, field.default_value_uint32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return set.SetUInt64(message, &field, field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return set.SetDouble(message, &field, field.default_value_double());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return set.SetFloat(message, &field, field.default_value_float());
    case FieldDescriptor::CPPTYPE_BOOL:
      return set.SetBool(message, &field, field.default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return set.SetEnum(message, &field, field.default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      return set.SetString(message, &field, field.default_value_string());
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return FillDefaults(set.MutableMessage(message, &field));
  }
}

}  // namespace

std::string JoinPath(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

bool InRange(double value, const FieldDescriptor& field) {
  if (!std::isfinite(value)) return false;
  const Range& range = field.options().GetExtension(hypermoe::range);
  if (range.has_min() && (value < range.min() || (range.above_min() && value == range.min())))
    return false;
  return !range.has_max() || value <= range.max();
}

const FieldDescriptor* FindField(const std::string& path) {
  const Descriptor* section = RunConfig::descriptor();
  const FieldDescriptor* field = nullptr;
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (const std::string& name : names) {
    field = section == nullptr ? nullptr : section->FindFieldByName(name);
    if (field == nullptr) return nullptr;
    section = field->message_type();
  }
  return field;
}

std::string UnknownFieldText(const std::string& path) {
  return absl::StrCat("unknown field '", path, "': did you mean '", NearestField(path), "'?");
}

std::string UnknownEnumText(const std::string& path, const FieldDescriptor& field,
                            const std::string& value) {
  const std::vector<std::string> names = EnumNames(field);
  return absl::StrCat("unknown value '", value, "' for '", path, "': allowed are ",
                      absl::StrJoin(names, ", "), "; did you mean '", NearestName(value, names),
                      "'?");
}

std::string AllowedText(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(EnumNames(field), ", "));
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return absl::StrCat("a section { ... } of ", field.message_type()->field_count(), " fields");
    default:
      break;
  }
  std::string text = IsFloating(field) ? "a number" : "an integer";
  const Range& range = field.options().GetExtension(hypermoe::range);
  if (range.has_min() && range.has_max() && !range.above_min()) {
    return absl::StrCat(text, " from ", BoundText(range.min(), field), " to ",
                        BoundText(range.max(), field));
  }
  if (range.has_min()) {
    absl::StrAppend(&text, range.above_min() ? " above " : " of at least ",
                    BoundText(range.min(), field));
  }
  if (range.has_max()) {
    absl::StrAppend(&text, range.has_min() ? "," : "", " at most ", BoundText(range.max(), field));
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64 && !range.has_min()) {
    absl::StrAppend(&text, " from 0 to ", std::numeric_limits<uint64_t>::max());
  }
  return text;
}

std::string ValueText(const Message& message, const FieldDescriptor& field) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  if (!field.is_repeated()) {
    printer.PrintFieldValueToString(message, &field, -1, &text);
    return text;
  }
  std::vector<std::string> items(message.GetReflection()->FieldSize(message, &field));
  for (size_t i = 0; i < items.size(); ++i) {
    printer.PrintFieldValueToString(message, &field, static_cast<int>(i), &items[i]);
    if (field.message_type() != nullptr) items[i] = absl::StrCat("{ ", items[i], "}");
  }
  return absl::StrCat("[", absl::StrJoin(items, ", "), "]");
}

absl::Status CheckRanges(const Message& message, const std::string& path,
                         const std::string& source) {
  const Reflection& get = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  get.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string field_path = JoinPath(path, field->name());
    const int count = field->is_repeated() ? get.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (field->message_type() != nullptr) {
        const Message& section = field->is_repeated() ? get.GetRepeatedMessage(message, field, i)
                                                      : get.GetMessage(message, field);
        RETURN_IF_ERROR(CheckRanges(section, field_path, source));
        continue;
      }
      if (!InRange(NumberAt(message, *field, i), *field)) {
        return ConfigError(absl::StrCat(source, ": '", field_path, "' is ",
                                        ValueText(message, *field), ", allowed is ",
                                        AllowedText(*field)));
      }
    }
  }
  return absl::OkStatus();
}

void FillDefaults(Message* message) {
  const Reflection& get = *message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message->GetDescriptor()->field(i);
    if (field.is_repeated()) {
      const int count = field.message_type() != nullptr ? get.FieldSize(*message, &field) : 0;
      for (int item = 0; item < count; ++item)
        FillDefaults(get.MutableRepeatedMessage(message, &field, item));
      continue;
    }
    // A section that is there may still lack fields.
    if (field.message_type() != nullptr || !get.HasField(*message, &field))
      FillDefault(message, field);
  }
}

}  // namespace hypermoe
