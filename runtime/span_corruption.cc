#include "runtime/span_corruption.h"

#include <algorithm>
#include <cmath>

#include "runtime/keyed_permutation.h"

namespace hypermoe {
namespace {

constexpr uint64_t kKeptStream = 0x6B657074;     // "kept"
constexpr uint64_t kNoiseStream = 0x6E6F697365;  // "noise"

// Halves to even, as the rounding mode of every process is.
int64_t Round(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

// `parts` positive numbers with the sum `items`, uniform over all such lists: parts - 1 of the
// items - 1 places between neighbours are chosen, each with the chance (still to choose) / (places
// left), which is selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, S).
std::vector<int64_t> RandomPartition(int64_t items, int64_t parts, uint64_t key) {
  std::vector<int64_t> lengths;
  int64_t begin = 0;
  for (int64_t place = 1; place < items; ++place) {
    const int64_t to_choose = parts - 1 - static_cast<int64_t>(lengths.size());
    const uint64_t random = KeyedHash(key, static_cast<uint64_t>(place));
    if (static_cast<int64_t>(random % static_cast<uint64_t>(items - place)) >= to_choose) continue;
    lengths.push_back(place - begin);
    begin = place;
  }
  lengths.push_back(items - begin);
  return lengths;
}

// Ids one after the other, as far as there is room before the end.
class RowWriter {
 public:
  RowWriter(absl::Span<int64_t> row) : row_(row) {}
  void Append(absl::Span<const int64_t> ids) {
    const size_t count = std::min(ids.size(), row_.size() - 1 - length_);
    std::copy_n(ids.begin(), count, row_.begin() + static_cast<std::ptrdiff_t>(length_));
    length_ += count;
  }
  // The length of the row.
  int64_t End(int64_t end_id) {
    row_[length_++] = end_id;
    return static_cast<int64_t>(length_);
  }

 private:
  absl::Span<int64_t> row_;
  size_t length_ = 0;
};

}  // namespace

SpanCounts CountSpans(int64_t tokens, const SpanOptions& options) {
  SpanCounts counts;
  counts.tokens = tokens;
  counts.noise = std::clamp<int64_t>(Round(static_cast<double>(tokens) * options.noise_density), 1,
                                     tokens - 1);
  counts.spans =
      std::clamp<int64_t>(Round(static_cast<double>(counts.noise) / options.mean_span_length), 1,
                          std::min(counts.noise, tokens - counts.noise));
  return counts;
}

SpanCounts LongestText(int64_t inputs, const SpanOptions& options) {
  SpanCounts longest = CountSpans(2, options);
  while (true) {
    const SpanCounts longer = CountSpans(longest.tokens + 1, options);
    if (longer.inputs() > inputs) return longest;
    longest = longer;
  }
}

SpanLengths DrawSpans(const SpanCounts& counts, uint64_t key) {
  return {RandomPartition(counts.tokens - counts.noise, counts.spans, KeyedHash(key, kKeptStream)),
          RandomPartition(counts.noise, counts.spans, KeyedHash(key, kNoiseStream))};
}

RowLengths CorruptText(absl::Span<const int64_t> text, const SpanLengths& spans, const SpanIds& ids,
                       absl::Span<int64_t> inputs, absl::Span<int64_t> targets) {
  RowWriter to_inputs(inputs), to_targets(targets);
  size_t begin = 0;
  for (size_t i = 0; i < spans.kept.size(); ++i) {
    const auto kept = static_cast<size_t>(spans.kept[i]),
               noise = static_cast<size_t>(spans.noise[i]);
    const int64_t sentinel = ids.first_sentinel - static_cast<int64_t>(i);
    to_inputs.Append(text.subspan(begin, kept));
    to_inputs.Append({&sentinel, 1});
    to_targets.Append({&sentinel, 1});
    to_targets.Append(text.subspan(begin + kept, noise));
    begin += kept + noise;
  }
  return {to_inputs.End(ids.end_id), to_targets.End(ids.end_id)};
}

}  // namespace hypermoe
