// T5's span corruption (arXiv:1910.10683, 3.1.4): spans of a text are taken away, and what was in
// them is to be predicted. Pure functions of their arguments.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace hypermoe {

struct SpanOptions {
  double noise_density = 0.15;  // share of a text's tokens that are taken away
  double mean_span_length = 3;  // of what is taken away; at least 1
};

// How many tokens of a text are taken away, and in how many spans.
struct SpanCounts {
  int64_t tokens = 0;  // of the text
  int64_t noise = 0;   // of them taken away
  int64_t spans = 0;   // that they are taken away in, each behind a span that is kept
  // What is kept, a sentinel for each gap, and the end.
  int64_t inputs() const { return tokens - noise + spans + 1; }
  // What was taken away, a sentinel before each span of it, and the end.
  int64_t targets() const { return noise + spans + 1; }
};

// Of a text of `tokens` >= 2: noise is tokens * noise_density, but at least 1 and below `tokens`;
// spans are noise / mean_span_length, but at least 1 and at most as many as tokens that are kept.
// Rounded in double, halves to even. All members, inputs() and targets() never fall as `tokens`
// rises.
SpanCounts CountSpans(int64_t tokens, const SpanOptions& options);

// Of the longest text whose inputs are not longer than `inputs` >= 3.
SpanCounts LongestText(int64_t inputs, const SpanOptions& options);

// Lengths of a text's spans, all positive: the first is kept, the second taken away, and so on in
// turn.
struct SpanLengths {
  std::vector<int64_t> kept, noise;  // equally many
};

// Both uniform over all that add up as `counts` say, and independent. The values are part of what a
// run computes and never change.
SpanLengths DrawSpans(const SpanCounts& counts, uint64_t key);

// Sentinel k is the id first_sentinel - k.
struct SpanIds {
  int64_t first_sentinel = 0;
  int64_t end_id = 0;
};

struct RowLengths {
  int64_t inputs = 0, targets = 0;
};

// Writes what is left of a text (kept, sentinel 0, kept, sentinel 1, ..., end) and what was taken
// away (sentinel 0, noise, sentinel 1, noise, ..., end) to the begins of `inputs` and `targets`,
// each at least 1 long. What does not fit is cut off before the end. The lengths of `spans` add up
// to the text's.
RowLengths CorruptText(absl::Span<const int64_t> text, const SpanLengths& spans, const SpanIds& ids,
                       absl::Span<int64_t> inputs, absl::Span<int64_t> targets);

}  // namespace hypermoe
