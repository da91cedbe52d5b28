// The configurations that the project gives, by folder of configs/.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace hypermoe {

// Names without ".textproto", ascending.
inline std::vector<std::string> ConfigsIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(HYPERMOE_SOURCE_DIR "/configs/" + folder)) {
    names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string ConfigPath(const std::string& folder, const std::string& name) {
  return HYPERMOE_SOURCE_DIR "/configs/" + folder + "/" + name + ".textproto";
}

}  // namespace hypermoe
