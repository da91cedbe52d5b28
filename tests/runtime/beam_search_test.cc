// Beam search finds what enumerating all sequences finds, and with few beams what transformers'
// arithmetic of masks keeps.
#include "runtime/beam_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "tests/support/random_logits.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int64_t>;

constexpr int64_t kEnd = 1;

at::Tensor Prompts(const std::vector<Ids>& prompts) {
  std::vector<at::Tensor> rows;
  for (const Ids& ids : prompts) rows.push_back(at::tensor(ids, at::kLong));
  return at::stack(rows);
}

std::vector<DecodedRow> Search(const BeamSearchOptions& options, const std::vector<Ids>& prompts,
                               const NextLogits& next) {
  const auto decoded = BeamSearch(options, Prompts(prompts), next, *NewSelfCommunicator("world"));
  EXPECT_TRUE(decoded.ok()) << decoded.status().message();
  return decoded.ok() ? *decoded : std::vector<DecodedRow>();
}

BeamSearchOptions Options(int64_t beams, int64_t max_length) {
  BeamSearchOptions options;
  options.beams = beams;
  options.max_length = max_length;
  options.end_id = kEnd;
  return options;
}

// Whether no `size` ids in a row occur twice.
bool NoRepeats(const Ids& ids, int64_t size) {
  std::set<Ids> seen;
  for (int64_t i = 0; size > 0 && i + size <= static_cast<int64_t>(ids.size()); ++i) {
    if (!seen.insert(Ids(ids.begin() + i, ids.begin() + i + size)).second) return false;
  }
  return true;
}

// The rules about sequences, seen from their ends: of all that begin with `ids`, the best.
void Enumerate(const BeamSearchOptions& options, const RandomLogits& logits, size_t prompt,
               const Ids& ids, double sum, DecodedRow* best) {
  const at::Tensor log_probs_V = at::log_softmax(logits.Of(ids), 0);
  for (int64_t id = 0; id < log_probs_V.size(0); ++id) {
    Ids longer = ids;
    longer.push_back(id);
    const auto length = static_cast<int64_t>(longer.size());
    if (!NoRepeats(longer, options.no_repeat_ngram)) continue;
    if (id == kEnd && length <= options.min_length) continue;
    const double total = sum + log_probs_V[id].item<double>();
    if (id != kEnd && length < options.max_length) {
      Enumerate(options, logits, prompt, longer, total, best);
      continue;
    }
    const double score =
        total / std::pow(static_cast<double>(longer.size() - prompt), options.length_penalty);
    if (best->ids.empty() || score > best->score) *best = {longer, score};
  }
}

TEST(BeamSearchTest, WithEnoughBeamsFindsTheBestOfAllSequences) {
  std::set<size_t> lengths;
  for (int seed = 0; seed < 6; ++seed) {
    for (const double penalty : {-1.0, 0.0, 0.6, 1.0, 2.0}) {
      for (const auto& [ngram, min_length] :
           std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {2, 0}, {1, 2}, {3, 4}}) {
        RandomLogits logits(4, "table " + std::to_string(seed));
        // No more sequences than these begin in any one step.
        BeamSearchOptions options = Options(108, 5);
        options.length_penalty = penalty;
        options.no_repeat_ngram = ngram;
        options.min_length = min_length;
        DecodedRow best;
        Enumerate(options, logits, 1, {0}, 0, &best);
        const std::vector<DecodedRow> found = Search(options, {{0}}, logits);
        ASSERT_EQ(found.size(), 1u);
        EXPECT_EQ(found[0].ids, best.ids) << seed << " " << penalty << " " << ngram;
        EXPECT_NEAR(found[0].score, best.score, 1e-12);
        lengths.insert(best.ids.size());
      }
    }
  }
  EXPECT_GE(lengths.size(), 4u) << "the cases are alike";
}

// One row as transformers has it: always `beams` running and as many finished sequences, with
// scores so low that they are never chosen where there is none.
constexpr double kNone = -1e9;

struct Scored {
  Ids ids;
  double score = kNone;
  bool finished = false;
};

std::vector<Scored> Top(std::vector<Scored> all, size_t count) {
  std::stable_sort(all.begin(), all.end(),
                   [](const Scored& a, const Scored& b) { return a.score > b.score; });
  all.resize(count);
  return all;
}

bool Improvable(const BeamSearchOptions& options, const Scored& running,
                const std::vector<Scored>& finished, size_t prompt) {
  const bool never = options.early_stopping == EarlyStopping::kNever && options.length_penalty > 0;
  const double length =
      (never ? static_cast<double>(options.max_length) : static_cast<double>(running.ids.size())) -
      static_cast<double>(prompt);
  bool any = false, all_finished = true;
  double worst = 0;
  for (const Scored& sequence : finished) worst = std::min(worst, sequence.score);
  for (const Scored& sequence : finished) {
    all_finished = all_finished && sequence.finished;
    any = any || running.score / std::pow(length, options.length_penalty) >
                     (sequence.finished ? worst : kNone);
  }
  return any && !(all_finished && options.early_stopping == EarlyStopping::kYes);
}

DecodedRow Reference(const BeamSearchOptions& options, const Ids& prompt,
                     const RandomLogits& logits) {
  const auto beams = static_cast<size_t>(options.beams);
  std::vector<Scored> running(beams, Scored{prompt}), finished(beams);
  running[0].score = 0;
  for (bool going = true; going;) {
    std::vector<Scored> all;
    for (const Scored& beam : running) {
      const at::Tensor log_probs_V = at::log_softmax(logits.Of(beam.ids), 0);
      for (int64_t id = 0; id < log_probs_V.size(0); ++id) {
        Scored longer{beam.ids, beam.score + log_probs_V[id].item<double>()};
        longer.ids.push_back(id);
        longer.finished =
            id == kEnd || static_cast<int64_t>(longer.ids.size()) == options.max_length;
        if (!NoRepeats(longer.ids, options.no_repeat_ngram) ||
            (id == kEnd && static_cast<int64_t>(beam.ids.size()) < options.min_length))
          longer.score = -std::numeric_limits<double>::infinity();
        all.push_back(longer);
      }
    }
    const std::vector<Scored> best = Top(all, 2 * beams);
    std::vector<Scored> open = best, merged = finished;
    bool all_end = true;
    for (size_t i = 0; i < best.size(); ++i) {
      all_end = all_end && best[i].finished;
      if (best[i].finished) open[i].score += kNone;
      Scored ended = best[i];
      ended.finished = ended.finished && i < beams;
      ended.score /=
          std::pow(static_cast<double>(ended.ids.size() - prompt.size()), options.length_penalty);
      if (!ended.finished) ended.score += kNone;
      merged.push_back(ended);
    }
    running = Top(open, beams);
    finished = Top(merged, beams);
    going = !all_end && Improvable(options, running[0], finished, prompt.size());
  }
  return {finished[0].ids, finished[0].score};
}

TEST(BeamSearchTest, WithFewBeamsKeepsWhatTransformersKeeps) {
  std::set<size_t> lengths;
  int modes_differ = 0;
  for (int seed = 0; seed < 12; ++seed) {
    for (const int64_t beams : {2, 3, 5}) {
      for (const double penalty : {-0.5, 0.0, 1.0, 2.0}) {
        RandomLogits logits(11, "beams " + std::to_string(seed), seed % 3);
        BeamSearchOptions options = Options(beams, 9);
        options.length_penalty = penalty;
        options.no_repeat_ngram = seed % 4;
        options.min_length = seed % 5;
        std::set<Ids> results;
        for (const EarlyStopping mode :
             {EarlyStopping::kNo, EarlyStopping::kYes, EarlyStopping::kNever}) {
          options.early_stopping = mode;
          const DecodedRow expected = Reference(options, {0}, logits);
          const std::vector<DecodedRow> found = Search(options, {{0}}, logits);
          EXPECT_EQ(found[0].ids, expected.ids) << seed << " " << beams << " " << penalty;
          EXPECT_NEAR(found[0].score, expected.score, 1e-9);
          results.insert(found[0].ids);
          lengths.insert(found[0].ids.size());
        }
        if (results.size() > 1) ++modes_differ;
      }
    }
  }
  EXPECT_GE(lengths.size(), 6u) << "the cases are alike";
  EXPECT_GE(modes_differ, 5) << "the cases are alike";
}

TEST(BeamSearchTest, OneBeamTakesTheLikeliestIdUntilTheEnd) {
  for (int seed = 0; seed < 20; ++seed) {
    RandomLogits logits(7, "greedy " + std::to_string(seed));
    BeamSearchOptions options = Options(1, 12);
    options.min_length = 4;
    options.length_penalty = seed % 3;
    options.early_stopping = seed % 2 == 0 ? EarlyStopping::kNo : EarlyStopping::kNever;
    Ids expected = {0, 5};
    double sum = 0;
    while (expected.size() < 12 && expected.back() != kEnd) {
      const at::Tensor log_probs_V = at::log_softmax(logits.Of(expected), 0);
      if (expected.size() < 4) log_probs_V[kEnd] = kNone;
      sum += log_probs_V.max().item<double>();
      expected.push_back(log_probs_V.argmax().item<int64_t>());
    }
    const std::vector<DecodedRow> found = Search(options, {{0, 5}}, logits);
    EXPECT_EQ(found[0].ids, expected);
    EXPECT_NEAR(found[0].score,
                sum / std::pow(static_cast<double>(expected.size() - 2), options.length_penalty),
                1e-12);
  }
}

// They finish at different times; those that have leave the batch.
TEST(BeamSearchTest, RowsDoNotMatterToEachOther) {
  const std::vector<Ids> prompts = {{0, 2}, {0, 3}, {4, 2}, {5, 5}, {6, 0}, {0, 2}};
  for (const int64_t beams : {1, 3}) {
    BeamSearchOptions options = Options(beams, 10);
    options.no_repeat_ngram = 2;
    RandomLogits together(9, "rows", 1);
    const std::vector<DecodedRow> found = Search(options, prompts, std::ref(together));
    std::set<int> calls;
    ASSERT_EQ(found.size(), prompts.size());
    for (size_t row = 0; row < prompts.size(); ++row) {
      RandomLogits alone(9, "rows", 1);
      const std::vector<DecodedRow> one = Search(options, {prompts[row]}, std::ref(alone));
      EXPECT_EQ(found[row].ids, one[0].ids);
      EXPECT_EQ(found[row].score, one[0].score);
      calls.insert(alone.calls());
    }
    EXPECT_GE(calls.size(), 2u) << "the rows stop together";
    EXPECT_EQ(together.calls(), *calls.rbegin());
  }
}

at::Tensor EqualLogits(const at::Tensor& ids_NL, const at::Tensor& /*parents_N*/) {
  return at::zeros({ids_NL.size(0), 5}, at::kFloat);
}

TEST(BeamSearchTest, OfEqualsTheBetterBeamAndThenTheLowerIdComesFirst) {
  EXPECT_THAT(Search(Options(1, 4), {{3}}, EqualLogits)[0].ids, ElementsAre(3, 0, 0, 0));
  BeamSearchOptions options = Options(2, 4);
  options.length_penalty = 2;
  EXPECT_THAT(Search(options, {{3}}, EqualLogits)[0].ids, ElementsAre(3, 0, 0, 0));
  options.length_penalty = 0;
  EXPECT_THAT(Search(options, {{3}}, EqualLogits)[0].ids, ElementsAre(3, 1));
  options.length_penalty = 1;  // all sequences score the same
  const std::vector<DecodedRow> found = Search(options, {{3}}, EqualLogits);
  EXPECT_THAT(found[0].ids, ElementsAre(3, 1));
  EXPECT_NEAR(found[0].score, -std::log(5), 1e-12);
}

TEST(BeamSearchTest, WithoutAnEndIdEverySequenceIsFull) {
  BeamSearchOptions options = Options(2, 6);
  options.end_id = -1;
  RandomLogits logits(5, "endless", 3);
  EXPECT_EQ(Search(options, {{0}}, logits)[0].ids.size(), 6u);
}

TEST(BeamSearchTest, NeverChoosesUnknownIds) {
  BeamSearchOptions options = Options(3, 8);
  options.known_ids = 4;
  for (const DecodedRow& row : Search(options, {{7}, {6}}, RandomLogits(9, "unknown"))) {
    EXPECT_LT(*std::max_element(row.ids.begin() + 1, row.ids.end()), 4);
    EXPECT_GT(row.score, -1e3);
  }
}

// Ids 0 and 2 once each; then nothing is left but the end, which is too early.
TEST(BeamSearchTest, ARowThatCannotGoOnEndsAsItIs) {
  BeamSearchOptions options = Options(2, 9);
  options.no_repeat_ngram = 1;
  options.min_length = 8;
  options.known_ids = 3;
  const std::vector<DecodedRow> found = Search(options, {{4}, {3}}, EqualLogits);
  EXPECT_THAT(found[0].ids, ElementsAre(4, 0, 2));
  EXPECT_THAT(found[1].ids, ElementsAre(3, 0, 2));
  EXPECT_NEAR(found[0].score, -std::log(5), 1e-12);
}

TEST(BeamSearchTest, NoRowsNeedNoCall) {
  RandomLogits logits(5, "none");
  const auto found = BeamSearch(Options(2, 5), at::zeros({0, 1}, at::kLong), std::ref(logits),
                                *NewSelfCommunicator("world"));
  ASSERT_TRUE(found.ok());
  EXPECT_TRUE(found->empty());
  EXPECT_EQ(logits.calls(), 0);
}

TEST(BeamSearchTest, LogitsThatAreNoNumbersAreAnError) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const NextLogits next = [bad](const at::Tensor& ids_NL, const at::Tensor& /*parents_N*/) {
      const at::Tensor logits_NV = at::zeros({ids_NL.size(0), 5}, at::kFloat);
      if (ids_NL.size(1) == 3) logits_NV[1][4] = bad;
      return logits_NV;
    };
    const auto found =
        BeamSearch(Options(1, 5), Prompts({{0}, {2}}), next, *NewSelfCommunicator("world"));
    EXPECT_EQ(ExitCodeOf(found.status()), ExitCode::kInternal);
    EXPECT_THAT(std::string(found.status().message()), HasSubstr("after 3 ids of row 1"));
  }
}

}  // namespace
}  // namespace hypermoe
