#include "runtime/token_lists.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace hypermoe {

void TokenLists::Add(absl::Span<const int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ends_.push_back(static_cast<int64_t>(ids_.size()));
}

absl::Span<const int32_t> TokenLists::operator[](int64_t text) const {
  const int64_t begin = text == 0 ? 0 : ends_[static_cast<size_t>(text - 1)];
  return absl::MakeConstSpan(ids_).subspan(
      static_cast<size_t>(begin), static_cast<size_t>(ends_[static_cast<size_t>(text)] - begin));
}

PaddedIds PadTexts(const TokenLists& lists, absl::Span<const int64_t> texts, int64_t length,
                   int64_t fill) {
  const auto rows = static_cast<int64_t>(texts.size());
  PaddedIds padded;
  padded.ids_BS = at::empty({rows, length}, at::kLong);
  auto* id = padded.ids_BS.mutable_data_ptr<int64_t>();
  bool all_full = true;
  for (const int64_t text : texts) {
    const absl::Span<const int32_t> ids = lists[text];
    const auto rest = length - static_cast<int64_t>(ids.size());
    id = std::fill_n(std::copy(ids.begin(), ids.end(), id), rest, fill);
    all_full = all_full && rest == 0;
  }
  if (all_full) return padded;
  padded.mask_BS = at::empty({rows, length}, at::kBool);
  auto* mask = padded.mask_BS.mutable_data_ptr<bool>();
  for (const int64_t text : texts) {
    mask = std::fill_n(mask, lists.length(text), true);
    mask = std::fill_n(mask, length - lists.length(text), false);
  }
  return padded;
}

int64_t LongestOf(const TokenLists& lists, absl::Span<const int64_t> texts) {
  int64_t longest = 1;
  for (const int64_t text : texts) longest = std::max(longest, lists.length(text));
  return longest;
}

}  // namespace hypermoe
