// The keys of a model folder's config.json whose value is that of one field of RunConfig, and its
// words for the values of enum fields.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"

namespace hypermoe {

struct FolderKey {
  const char* key;
  const char* field;                // path in RunConfig
  std::optional<double> if_absent;  // of numbers, where it is not the field's own default
};

const std::vector<FolderKey>& Gpt2Keys();     // at the top level, of GPT-2
const std::vector<FolderKey>& SwitchKeys();   // there, of switch_transformers
const std::vector<FolderKey>& T5Keys();       // there, of t5
const std::vector<FolderKey>& MoeKeys();      // in the block "moe"
const std::vector<FolderKey>& LossKeys();     // in the block "losses" of "moe"
const std::vector<FolderKey>& HyperKeys();    // in the block "hypermoe", for kind hyper
const std::vector<FolderKey>& AdapterKeys();  // there, for kind adapter
// There, for condition weights; not part of the format, which knows their defaults alone: written
// where they are something else.
const std::vector<FolderKey>& WeightEncoderKeys();

// A field, and the section of a configuration that it is in.
struct FieldPlace {
  google::protobuf::Message* section;
  const google::protobuf::FieldDescriptor* field;
};
FieldPlace FindPlace(const std::string& path, RunConfig* config);

// The word for `value`; the value that `word` stands for in `field`, or nullptr; all words of
// `field`. Kinds are those of sparse models.
std::string FolderWord(const google::protobuf::EnumValueDescriptor& value);
const google::protobuf::EnumValueDescriptor* FindFolderWord(
    const google::protobuf::FieldDescriptor& field, const std::string& word);
std::vector<std::string> FolderWords(const google::protobuf::FieldDescriptor& field);

}  // namespace hypermoe
