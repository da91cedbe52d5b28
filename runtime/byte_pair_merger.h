// Merges the bytes of a word into the pieces of a vocabulary.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/gpt2_vocabulary.h"

namespace hypermoe {

// Merges the neighbours of lowest rank, the leftmost first, until none can be merged. A word of n
// bytes takes time n log n. For one thread; the vocabulary must outlive it.
class BytePairMerger {
 public:
  explicit BytePairMerger(const Gpt2Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  // Appends the ids of `word` to `ids`.
  void Merge(std::string_view word, std::vector<int32_t>* ids);

 private:
  // Of a list over the word's bytes; a symbol that was merged into its left neighbour has no id.
  struct Symbol {
    int32_t id;
    int64_t previous, next;  // kNone at the ends
  };
  struct Candidate {
    Gpt2Vocabulary::Merge merge;
    int32_t left_id, right_id;
    int64_t left;  // index of a symbol

    bool operator<(const Candidate& other) const {  // std::push_heap keeps the greatest on top
      if (merge.rank != other.merge.rank) return merge.rank > other.merge.rank;
      return left > other.left;
    }
  };

  // Notes that symbol `left` and the one after it can be merged, if so.
  void Consider(int64_t left);

  const Gpt2Vocabulary& vocabulary_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace hypermoe
