// Token files that are not there, whose tokens say where they stand.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/dataset.h"
#include "runtime/token_file.h"

namespace hypermoe {

// Token i of file f is kFileTokens * f + i, so that a row tells where it comes from.
constexpr int64_t kFileTokens = 1000000;

class CountingFile : public TokenFile {
 public:
  CountingFile(int64_t file, int64_t tokens) : file_(file), tokens_(tokens) {}
  int64_t num_tokens() const override { return tokens_; }
  int64_t num_documents() const override { return 1; }
  void Read(int64_t begin, int64_t count, int64_t* ids) const override {
    ASSERT_GE(begin, 0);
    ASSERT_LE(begin + count, tokens_);
    for (int64_t i = 0; i < count; ++i) ids[i] = kFileTokens * file_ + begin + i;
  }
  absl::Status CheckIds(int64_t) const override { return absl::OkStatus(); }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  int64_t file_, tokens_;
  std::string fingerprint_;
};

// `begin` tokens of the file are left out.
inline WeightedTokens CountedTokens(int64_t file, int64_t tokens, double weight,
                                    int64_t begin = 0) {
  return {{std::make_shared<CountingFile>(file, tokens), begin, tokens}, weight};
}

}  // namespace hypermoe
