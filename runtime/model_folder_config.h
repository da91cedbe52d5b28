// config.json of a model folder, and what it says as sections of RunConfig.
#pragma once

#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// Sections model and hyper as `text` says, the content of the file `path`; all else, and
// hyper.execution, which is auto, as this program sees fit. Absent keys have Hugging Face's
// defaults (for the blocks moe and hypermoe: the format's), keys that are not used are ignored. A
// capacity holds in training too. DataError: not JSON, or a used key with a value of the wrong type
// or out of range; ConfigError: a value that changes the model in a way that is not supported here.
absl::StatusOr<RunConfig> ReadFolderConfig(const std::string& path, const std::string& text);

// The text of a config.json for the model. `source`: "" or the text of the config.json that the
// model came with, of which everything stays whose meaning has not changed (the whole text, byte
// for byte, if nothing has). `dtype`: Hugging Face's name of the tensors' type ("float32"), for new
// files. ConfigError if `source` cannot be read, or for a model that no folder can describe.
absl::StatusOr<std::string> FolderConfigText(const RunConfig& model, const std::string& source,
                                             const std::string& dtype);

}  // namespace hypermoe
