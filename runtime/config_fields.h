// The fields of RunConfig as a user sees them: by path ("model.num_layers"), with what each
// accepts. Everything comes from the descriptors of configs/run.proto by reflection, so that a new
// field needs no line here.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

// The field at `path`, or nullptr. Sections (sub-messages) are fields too.
const google::protobuf::FieldDescriptor* FindField(const std::string& path);

// "unknown field 'model.num_layer': did you mean 'model.num_layers'?" A right name in a wrong
// section counts as near.
std::string UnknownFieldText(const std::string& path);

// "unknown value 'mo' for 'model.kind': allowed are dense, moe, hyper; did you mean 'moe'?"
std::string UnknownEnumText(const std::string& path, const google::protobuf::FieldDescriptor& field,
                            const std::string& value);

// What `field` accepts: "an integer from 1 to 256", "a number above 0, at most 0.1", "one of dense,
// moe, hyper", "text".
std::string AllowedText(const google::protobuf::FieldDescriptor& field);

// Whether the number `value` is within the (hypermoe.range) of `field`; NaN and infinity never are.
bool InRange(double value, const google::protobuf::FieldDescriptor& field);

// The value of `field` as it stands in a config: 4, "data/mine", hyper, [1, 3],
// [{ prefix: "a" weight: 2 }].
std::string ValueText(const google::protobuf::Message& message,
                      const google::protobuf::FieldDescriptor& field);

// An error if a number that is set in `message` is outside its (hypermoe.range), NaN or infinite.
// `path` is that of `message`, "" for the whole; `source` says where the value was given.
absl::Status CheckRanges(const google::protobuf::Message& message, const std::string& path,
                         const std::string& source);

// Sets every absent field to its default and every absent section to one of defaults, in the
// sections of lists too.
void FillDefaults(google::protobuf::Message* message);

// "a.b" of "a" and "b", "b" of "" and "b".
std::string JoinPath(const std::string& path, const std::string& name);

}  // namespace hypermoe
