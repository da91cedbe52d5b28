// The token ids of many texts.
//
// Legend: B rows, S positions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace hypermoe {

// Texts one after the other in one array.
class TokenLists {
 public:
  void Add(absl::Span<const int32_t> ids);
  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  absl::Span<const int32_t> operator[](int64_t text) const;
  int64_t length(int64_t text) const { return static_cast<int64_t>((*this)[text].size()); }
  const std::vector<int32_t>& all_ids() const { return ids_; }
  // Where each text ends in them.
  const std::vector<int64_t>& ends() const { return ends_; }

 private:
  std::vector<int32_t> ids_;
  std::vector<int64_t> ends_;
};

// Texts as the rows of a batch.
struct PaddedIds {
  at::Tensor ids_BS;   // int64
  at::Tensor mask_BS;  // bool: which of them stand for tokens; undefined: all
};
// The texts of these numbers, each filled up to `length`, which is at least that of every one, with
// `fill`. Uses no operator of LibTorch that runs in parallel (prefetcher.h).
PaddedIds PadTexts(const TokenLists& lists, absl::Span<const int64_t> texts, int64_t length,
                   int64_t fill);

// The length of the longest of the texts of these numbers, at least 1.
int64_t LongestOf(const TokenLists& lists, absl::Span<const int64_t> texts);

}  // namespace hypermoe
