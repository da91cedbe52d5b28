// The JSON of a safetensors header, read as a stream: names that stand twice are seen, and nothing
// is built that the format does not have.
#pragma once

#include <cstddef>
#include <string>

#include "runtime/safetensors_header.h"

namespace hypermoe {

// Fills tensors and metadata of `header`. Returns what is wrong, or "". Sizes and offsets are not
// checked.
std::string ParseSafetensorsJson(const char* text, size_t size, SafetensorsHeader* header);

}  // namespace hypermoe
