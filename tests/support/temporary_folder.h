// A folder that a test may fill, removed with all its content afterwards.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace hypermoe {

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(testing::TempDir() + "hypermoe_test.XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "cannot create " << path_;
  }
  // Of a folder that another process has created and removes.
  explicit TemporaryFolder(std::string path) : path_(std::move(path)), own_(false) {}
  ~TemporaryFolder() {
    if (own_) std::filesystem::remove_all(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  // Writes a file into it; the file's path.
  std::string Write(const std::string& name, const std::string& content) const;
  // How many files and folders are in it.
  int64_t size() const { return std::distance(std::filesystem::directory_iterator(path_), {}); }

 private:
  std::string path_;
  bool own_ = true;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  EXPECT_TRUE(file.flush().good()) << path;
}

inline std::string TemporaryFolder::Write(const std::string& name,
                                          const std::string& content) const {
  WriteFile(*this / name, content);
  return *this / name;
}

}  // namespace hypermoe
