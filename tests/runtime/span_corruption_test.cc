#include "runtime/span_corruption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "runtime/keyed_permutation.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using Ids = std::vector<int64_t>;

// What T5 does, as another implementation found it (../shared/data/oracle/README.md).
nlohmann::json Oracle() {
  return nlohmann::json::parse(ReadFile(HYPERMOE_TEST_DATA "/span_corruption.json"));
}

int64_t Sum(const Ids& ids) { return std::accumulate(ids.begin(), ids.end(), int64_t{0}); }

TEST(SpanCountsTest, AreThoseOfT5) {
  const nlohmann::json oracle = Oracle();
  const SpanOptions options{oracle["noise_density"], oracle["mean_noise_span_length"]};
  ASSERT_EQ(oracle["lengths"].size(), 4u);
  for (const nlohmann::json& row : oracle["lengths"]) {
    const SpanCounts counts = LongestText(row["inputs_length"], options);
    EXPECT_EQ(counts.tokens, row["raw_length"]);
    EXPECT_EQ(counts.noise, row["noise_tokens"]);
    EXPECT_EQ(counts.spans, row["noise_spans"]);
    EXPECT_EQ(counts.inputs(), row["corrupted_inputs_length"]);
    EXPECT_EQ(counts.targets(), row["targets_length"]);
  }
  for (const nlohmann::json& example : oracle["examples"]) {
    const SpanCounts counts = CountSpans(static_cast<int64_t>(example["raw"].size()), options);
    EXPECT_EQ(counts.noise, Sum(example["noise_spans"]));
    EXPECT_EQ(counts.spans, example["noise_spans"].size());
  }
}

// 0.15 L ends in a half there, which only single precision rounds upwards.
TEST(SpanCountsTest, AreRoundedInDoubleHalvesToEven) {
  EXPECT_EQ(CountSpans(190, {}).noise, 28);
  EXPECT_EQ(CountSpans(350, {}).noise, 52);
  EXPECT_EQ(CountSpans(390, {}).noise, 58);
  EXPECT_EQ(CountSpans(710, {}).noise, 106);
  EXPECT_EQ(CountSpans(10, {}).noise, 2);        // of 1.5
  EXPECT_EQ(CountSpans(10, {0.5, 2}).spans, 2);  // of 2.5
  EXPECT_EQ(CountSpans(14, {0.5, 2}).spans, 4);  // of 3.5
  EXPECT_EQ(LongestText(2048, {}).spans, 114);
}

TEST(SpanCountsTest, LeaveSomethingAndTakeSomething) {
  for (const SpanOptions& options : std::vector<SpanOptions>{
           {}, {0.001, 3}, {0.9, 1}, {0.5, 1}, {0.5, 1000}, {0.25, 1.5}, {0.9, 7.3}}) {
    SpanCounts before;
    for (int64_t tokens = 2; tokens < 2000; ++tokens) {
      const SpanCounts counts = CountSpans(tokens, options);
      EXPECT_GE(counts.spans, 1);
      EXPECT_GE(counts.noise, counts.spans);
      EXPECT_GE(counts.tokens - counts.noise, counts.spans);
      EXPECT_GE(counts.noise, before.noise);
      EXPECT_GE(counts.spans, before.spans);
      EXPECT_GE(counts.inputs(), before.inputs());
      // The longest text is the longest.
      const int64_t longest = LongestText(counts.inputs(), options).tokens;
      EXPECT_GE(longest, tokens);
      EXPECT_GT(CountSpans(longest + 1, options).inputs(), counts.inputs());
      before = counts;
    }
  }
}

TEST(CorruptTextTest, GivesTheRowsOfT5) {
  const nlohmann::json oracle = Oracle();
  const SpanIds ids{oracle["first_sentinel"], oracle["eos"]};
  ASSERT_EQ(oracle["examples"].size(), 12u);
  for (const nlohmann::json& example : oracle["examples"]) {
    const Ids text = example["raw"];
    Ids inputs(example.value("max_inputs", size_t{300}), -7),
        targets(example.value("max_targets", size_t{300}), -7);
    const RowLengths lengths =
        CorruptText(text, {example["nonnoise_spans"], example["noise_spans"]}, ids,
                    absl::MakeSpan(inputs), absl::MakeSpan(targets));
    // Nothing is written behind a row.
    EXPECT_EQ(std::count(inputs.begin() + lengths.inputs, inputs.end(), -7),
              inputs.end() - inputs.begin() - lengths.inputs);
    inputs.resize(static_cast<size_t>(lengths.inputs));
    targets.resize(static_cast<size_t>(lengths.targets));
    EXPECT_EQ(inputs, example["inputs"].get<Ids>());
    EXPECT_EQ(targets, example["targets"].get<Ids>());
  }
}

TEST(DrawSpansTest, CutsTheWholeTextAndFillsTheRow) {
  for (const SpanOptions& options :
       std::vector<SpanOptions>{{}, {0.5, 1}, {0.3, 1.5}, {0.9, 10}, {0.001, 3}}) {
    for (int64_t tokens = 2; tokens < 150; ++tokens) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        const SpanCounts counts = CountSpans(tokens, options);
        const SpanLengths spans = DrawSpans(counts, seed);
        ASSERT_EQ(spans.kept.size(), static_cast<size_t>(counts.spans));
        ASSERT_EQ(spans.noise.size(), static_cast<size_t>(counts.spans));
        EXPECT_GE(*std::min_element(spans.kept.begin(), spans.kept.end()), 1);
        EXPECT_GE(*std::min_element(spans.noise.begin(), spans.noise.end()), 1);

        // Every token is in one of the two rows, each row in the text's order, and full.
        Ids text(static_cast<size_t>(tokens));
        std::iota(text.begin(), text.end(), 0);
        Ids inputs(static_cast<size_t>(counts.inputs())),
            targets(static_cast<size_t>(counts.targets()));
        const RowLengths lengths = CorruptText(text, spans, {10000, 20000}, absl::MakeSpan(inputs),
                                               absl::MakeSpan(targets));
        EXPECT_EQ(lengths.inputs, counts.inputs());
        EXPECT_EQ(lengths.targets, counts.targets());
        EXPECT_EQ(inputs.back(), 20000);
        EXPECT_EQ(targets.back(), 20000);
        EXPECT_EQ(targets.front(), 10000);
        Ids tokens_of_both, sentinels_of_inputs, sentinels_of_targets;
        for (const auto& [row, sentinels] : {std::pair(&inputs, &sentinels_of_inputs),
                                             std::pair(&targets, &sentinels_of_targets)}) {
          for (const int64_t id : *row) {
            if (id < tokens) tokens_of_both.push_back(id);
            if (id >= tokens && id < 20000) sentinels->push_back(10000 - id);
          }
        }
        std::sort(tokens_of_both.begin(), tokens_of_both.end());
        EXPECT_EQ(tokens_of_both, text);
        Ids numbers(static_cast<size_t>(counts.spans));
        std::iota(numbers.begin(), numbers.end(), 0);
        EXPECT_EQ(sentinels_of_inputs, numbers);
        EXPECT_EQ(sentinels_of_targets, numbers);
      }
    }
  }
}

// Pearson's statistic of how often each outcome came, against all being equally likely.
double ChiSquare(const std::map<Ids, int>& times, int draws) {
  const double expected = static_cast<double>(draws) / static_cast<double>(times.size());
  double sum = 0;
  for (const auto& [outcome, count] : times) sum += (count - expected) * (count - expected);
  return sum / expected;
}

TEST(DrawSpansTest, AllCutsAreEquallyLikely) {
  constexpr int kDraws = 30000;
  std::map<Ids, int> kept, noise, both;
  for (int draw = 0; draw < kDraws; ++draw) {
    // As the dataset makes its keys; 7 and 6 tokens in 3 spans each.
    const SpanLengths spans = DrawSpans({13, 6, 3}, KeyedHash(5, static_cast<uint64_t>(draw)));
    ++kept[spans.kept];
    ++noise[spans.noise];
    Ids joined = spans.kept;
    joined.insert(joined.end(), spans.noise.begin(), spans.noise.end());
    ++both[joined];
  }
  // All of C(6,2) and C(5,2), and every pair of them; the bounds are passed once in a thousand.
  EXPECT_EQ(kept.size(), 15u);
  EXPECT_EQ(noise.size(), 10u);
  EXPECT_EQ(both.size(), 150u);
  EXPECT_LT(ChiSquare(kept, kDraws), 36.1);
  EXPECT_LT(ChiSquare(noise, kDraws), 27.9);
  EXPECT_LT(ChiSquare(both, kDraws), 206.0);
}

TEST(DrawSpansTest, NeverChanges) {
  const SpanLengths spans = DrawSpans(CountSpans(100, {}), 1);
  EXPECT_THAT(spans.kept, ElementsAre(3, 12, 46, 3, 21));
  EXPECT_THAT(spans.noise, ElementsAre(3, 2, 5, 2, 3));
}

}  // namespace
}  // namespace hypermoe
