#include "runtime/byte_pair_merger.h"

#include <algorithm>

namespace hypermoe {
namespace {

constexpr int64_t kNone = -1;

}  // namespace

void BytePairMerger::Merge(std::string_view word, std::vector<int32_t>* ids) {
  const auto size = static_cast<int64_t>(word.size());
  symbols_.clear();
  for (int64_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<size_t>(i)]);
    symbols_.push_back({vocabulary_.byte_ids[byte], i - 1, i + 1 < size ? i + 1 : kNone});
  }
  for (int64_t i = 0; i + 1 < size; ++i) Consider(i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate best = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[best.left];
    // An earlier merge may have taken either symbol.
    if (left.id != best.left_id || left.next == kNone || symbols_[left.next].id != best.right_id)
      continue;
    Symbol& right = symbols_[left.next];
    left.id = best.merge.id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) {
      symbols_[left.next].previous = best.left;
      Consider(best.left);
    }
    if (left.previous != kNone) Consider(left.previous);
  }
  for (const Symbol& symbol : symbols_) {
    if (symbol.id != kNone) ids->push_back(symbol.id);
  }
}

void BytePairMerger::Consider(int64_t left) {
  const int32_t left_id = symbols_[left].id, right_id = symbols_[symbols_[left].next].id;
  const auto found = vocabulary_.merges.find(Gpt2Vocabulary::PairKey(left_id, right_id));
  if (found == vocabulary_.merges.end()) return;
  heap_.push_back({found->second, left_id, right_id, left});
  std::push_heap(heap_.begin(), heap_.end());
}

}  // namespace hypermoe
