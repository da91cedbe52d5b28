// The files of a GPT-2 byte-pair tokenizer, read and checked.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/status.h"

namespace hypermoe {

struct Gpt2Vocabulary {
  struct Merge {
    int32_t rank;  // lower ones come first
    int32_t id;    // of both pieces together
  };
  static uint64_t PairKey(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }

  std::vector<std::string> pieces;              // the bytes of each id
  std::array<int32_t, 256> byte_ids;            // the id of each single byte
  absl::flat_hash_map<uint64_t, Merge> merges;  // by PairKey
  int32_t end_of_text = 0;                      // of the piece <|endoftext|>
};

// Reads folder/vocab.json (an object of piece: id, in which every byte stands for itself or a
// substitute printable character) and folder/merges.txt (a pair of pieces a line, by rank, after an
// optional line "#version..."). Ids must be 0 to N - 1; every byte, <|endoftext|> and both pieces
// and the result of every merge must be in the vocabulary; a merge may only use single bytes and
// what earlier merges made, so that the order of merging is never ambiguous; none may make
// <|endoftext|>. Anything else is DataError that names file and key or line; a file that cannot be
// read is IoError.
absl::StatusOr<Gpt2Vocabulary> ReadGpt2Vocabulary(const std::string& folder);

}  // namespace hypermoe
