// Safetensors files made by hand.
#pragma once

#include <cstdint>
#include <string>

namespace hypermoe {

// Length, header, data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes + header + data;
}

}  // namespace hypermoe
