// Rows of corrupted spans: which tokens they hold, under any layout, and what cannot be made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "runtime/dataset.h"
#include "runtime/row_format.h"
#include "runtime/tokenizer.h"
#include "tests/support/counting_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_gpt2_vocabulary.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

// Above all tokens of two files.
constexpr SpanIds kSpecial{9000000, 9000001};
constexpr int64_t kPad = 9000002;

std::shared_ptr<const RowFormat> Format(int64_t sequence_length, const SpanOptions& options = {}) {
  return SpanCorruptionRows(sequence_length, options, kSpecial, kPad);
}

Ids RowOf(const at::Tensor& ids, int64_t row) {
  const at::Tensor one = ids.select(0, row).contiguous();
  return {one.data_ptr<int64_t>(), one.data_ptr<int64_t>() + one.numel()};
}

// The text that a row was made of: its gaps filled with what the labels say.
Ids Restore(const Batch& batch, int64_t row) {
  const Ids inputs = RowOf(batch.input_ids_BS, row), labels = RowOf(batch.labels_BS, row);
  const auto is_token = [](int64_t id) { return id >= 0 && id < 2 * kFileTokens; };
  Ids text;
  auto label = labels.begin();
  for (const int64_t id : inputs) {
    if (id == kSpecial.end_id) break;
    if (is_token(id)) {
      text.push_back(id);
      continue;
    }
    EXPECT_EQ(*label, id) << "the sentinel of a gap";
    for (++label; is_token(*label); ++label) text.push_back(*label);
  }
  EXPECT_EQ(*label, kSpecial.end_id);
  return text;
}

Ids Tokens(int64_t first, int64_t count) {
  Ids tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(SpanRowsTest, HaveTheLengthsOfT5) {
  EXPECT_EQ(Format(512)->sizes().stride, 568);
  EXPECT_EQ(Format(512)->sizes().inputs, 512);
  EXPECT_EQ(Format(512)->sizes().labels, 114);
}

TEST(SpanRowsTest, AnEpochHoldsEveryWindowOnceAndAllRowsAreFull) {
  const auto format = Format(20);
  const int64_t stride = format->sizes().stride;
  const TrainingRows rows({CountedTokens(0, 10 * stride + 3, 1, 5)}, format, 4, 1);
  EXPECT_EQ(rows.WindowsPerEpoch(0), (10 * stride - 2 + 1) / stride - 1);
  const int64_t windows = rows.WindowsPerEpoch(0);
  std::set<int64_t> offsets;
  for (int64_t epoch = 0; epoch < 200; ++epoch) {
    std::set<int64_t> firsts;
    for (int64_t i = 0; i < windows; ++i) {
      const int64_t r = epoch * windows + i;
      const TrainingRows::Window window = rows.WindowOf(r);
      EXPECT_EQ(window.epoch, epoch);
      firsts.insert(window.first);
      if (epoch >= 20) continue;
      const Batch batch = rows.Rows(r / 4, r % 4, r % 4 + 1);
      EXPECT_EQ(Restore(batch, 0), Tokens(5 + window.first, stride));
      EXPECT_EQ(RowOf(batch.input_ids_BS, 0).back(), kSpecial.end_id);
      EXPECT_EQ(RowOf(batch.labels_BS, 0).back(), kSpecial.end_id);
      EXPECT_FALSE(batch.attention_mask_BS.defined());
      EXPECT_FALSE(batch.decoder_ids_BT.defined());
      EXPECT_EQ(RowOf(batch.row_ids_B.unsqueeze(0), 0), Ids{r % 4});
    }
    EXPECT_EQ(firsts.size(), static_cast<size_t>(windows));
    EXPECT_EQ(*firsts.rbegin() - *firsts.begin(), (windows - 1) * stride);
    offsets.insert(*firsts.begin());
  }
  EXPECT_EQ(offsets, [&] {
    const Ids all = Tokens(0, stride);
    return std::set<int64_t>(all.begin(), all.end());
  }());
}

TEST(SpanRowsTest, EveryEpochCorruptsAnew) {
  const auto format = Format(60);
  // A single window, at one offset.
  const TrainingRows rows({CountedTokens(0, format->sizes().stride, 1)}, format, 1, 1),
      other({CountedTokens(0, format->sizes().stride, 1)}, format, 1, 2);
  std::set<Ids> seen;
  for (int64_t epoch = 0; epoch < 50; ++epoch) {
    seen.insert(RowOf(rows.Rows(epoch, 0, 1).input_ids_BS, 0));
    seen.insert(RowOf(other.Rows(epoch, 0, 1).input_ids_BS, 0));
  }
  EXPECT_GE(seen.size(), 98u) << "of 100, of 53,000 ways";
}

TEST(SpanRowsTest, WindowsOfAnEpochAndFilesOfAMixtureAreCutIndependently) {
  const auto format = Format(60);
  const int64_t tokens = 40 * format->sizes().stride;
  const TrainingRows rows({CountedTokens(0, tokens, 1), CountedTokens(1, tokens, 1)}, format, 2, 1);
  std::set<Ids> seen;
  for (int64_t r = 0; r < 60; ++r) {
    // By position: what is cut out of each.
    Ids gaps = RowOf(rows.Rows(r / 2, r % 2, r % 2 + 1).input_ids_BS, 0);
    for (int64_t& id : gaps) id = id < 2 * kFileTokens ? 0 : id;
    seen.insert(gaps);
  }
  EXPECT_GE(seen.size(), 55u) << "of 60, of 1,485 ways";
}

TEST(SpanRowsTest, AreTheSameForEveryWayOfCuttingABatch) {
  const auto format = Format(20);
  const std::vector<WeightedTokens> files = {CountedTokens(0, 300, 2), CountedTokens(1, 200, 1)};
  const TrainingRows rows(files, format, 8, 9), again(files, format, 8, 9);
  for (int64_t step = 0; step < 20; ++step) {
    const Batch whole = rows.Rows(step, 0, 8);
    for (const Ids& cuts : std::vector<Ids>{{0, 4, 8}, {0, 1, 1, 8}, {0, 3, 5, 8}}) {
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        const Batch part = again.Rows(step, cuts[i], cuts[i + 1]);
        ASSERT_EQ(part.labels_BS.size(1), format->sizes().labels);
        for (int64_t row = cuts[i]; row < cuts[i + 1]; ++row) {
          EXPECT_EQ(RowOf(part.input_ids_BS, row - cuts[i]), RowOf(whole.input_ids_BS, row));
          EXPECT_EQ(RowOf(part.labels_BS, row - cuts[i]), RowOf(whole.labels_BS, row));
        }
      }
    }
  }
}

TEST(SpanRowsTest, TheShortestFilesWork) {
  const auto format = Format(20);
  const int64_t stride = format->sizes().stride;
  for (int64_t tokens = stride; tokens <= 4 * stride; ++tokens) {
    const TrainingRows rows({CountedTokens(0, tokens, 1)}, format, 1, 3);
    for (int64_t r = 0; r < 20; ++r) {
      EXPECT_EQ(Restore(rows.Rows(r, 0, 1), 0), Tokens(rows.WindowOf(r).first, stride));
    }
  }
}

// Of a range whose last window has `rest` tokens.
void ExpectWindows(int64_t rest) {
  const auto format = Format(20);
  const int64_t stride = format->sizes().stride;
  const TokenRange all = CountedTokens(0, 10 * stride, 1).tokens;
  const std::vector<TokenRange> ranges = {
      {all.file, 7, 7 + 3 * stride + rest}, {all.file, 0, 0}, {all.file, 0, stride}};
  const ValidationWindows windows(ranges, format);
  const int64_t of_first = 3 + (rest >= 2 ? 1 : 0);
  ASSERT_EQ(windows.size(), of_first + 1) << rest;
  Ids tokens;
  int64_t predictions = 0;
  for (int64_t window = 0; window < windows.size(); ++window) {
    const Batch batch = windows.Windows(window, window + 1);
    const Ids text = Restore(batch, 0), inputs = RowOf(batch.input_ids_BS, 0),
              labels = RowOf(batch.labels_BS, 0);
    tokens.insert(tokens.end(), text.begin(), text.end());
    const bool is_short = window == 3 && rest >= 2;
    EXPECT_EQ(batch.attention_mask_BS.defined(), is_short);
    const int64_t pads = std::count(inputs.begin(), inputs.end(), kPad);
    EXPECT_EQ(pads > 0, is_short);
    if (is_short) {
      const at::Tensor mask_S = batch.attention_mask_BS.select(0, 0);
      EXPECT_EQ(mask_S.sum().item<int64_t>(), 20 - pads);
      EXPECT_TRUE(mask_S.slice(0, 0, 20 - pads).all().item<bool>());
    }
    predictions += static_cast<int64_t>(labels.size()) -
                   std::count(labels.begin(), labels.end(), int64_t{kIgnoredLabel});
  }
  EXPECT_EQ(windows.num_predictions(), predictions);
  Ids expected = Tokens(7, 3 * stride + (rest >= 2 ? rest : 0));
  const Ids last = Tokens(0, stride);
  expected.insert(expected.end(), last.begin(), last.end());
  EXPECT_EQ(tokens, expected);
}

TEST(SpanValidationTest, WindowsHoldEachTokenOnceAndTheLastOneIsPadded) {
  for (const int64_t rest : {0, 1, 2, 3, 10, 20}) ExpectWindows(rest);
}

TEST(SpanValidationTest, IsTheSameHoweverItIsRead) {
  const auto format = Format(20);
  // Ten full windows and one of 5 tokens.
  const TokenRange range = CountedTokens(0, 10 * format->sizes().stride + 5, 1).tokens;
  const ValidationWindows windows({range}, format), again({range}, format);
  ASSERT_EQ(windows.size(), 11);
  const Batch whole = windows.Windows(0, 11), strided = again.Windows(1, 11, 3);
  EXPECT_EQ(RowOf(strided.row_ids_B.unsqueeze(0), 0), (Ids{1, 4, 7, 10}));
  EXPECT_TRUE(whole.attention_mask_BS.defined()) << "of the last one";
  for (int64_t row = 0; row < 4; ++row) {
    EXPECT_EQ(RowOf(strided.input_ids_BS, row), RowOf(whole.input_ids_BS, 1 + 3 * row));
    EXPECT_EQ(RowOf(strided.labels_BS, row), RowOf(whole.labels_BS, 1 + 3 * row));
    EXPECT_TRUE(strided.attention_mask_BS.select(0, row).equal(
        whole.attention_mask_BS.select(0, 1 + 3 * row)));
  }
  EXPECT_FALSE(again.Windows(1, 10, 3).attention_mask_BS.defined());
}

class SpanFormatTest : public ::testing::Test {
 protected:
  SpanFormatTest() {
    model_.set_family(ModelConfig::switch_transformers);
    model_.set_vocab_size(360);
    model_.set_end_id(256);
  }
  std::string Error() const {
    const absl::Status status = MakeRowFormat(data_, model_).status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
    return std::string(status.message());
  }

  DataConfig data_;
  ModelConfig model_;
  TemporaryFolder folder_;
};

TEST_F(SpanFormatTest, TakesSentinelsAndEndFromTheTokenizer) {
  const auto format = MakeRowFormat(data_, model_);
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ((*format)->sizes().stride, 141);
  Ids text(141, 'a'), inputs(128), labels(29);
  EXPECT_EQ((*format)->Fill(text, 3, absl::MakeSpan(inputs), absl::MakeSpan(labels)), 128);
  EXPECT_EQ(labels.front(), 356);
  EXPECT_EQ(labels.back(), 256);
  EXPECT_EQ(std::count(inputs.begin(), inputs.end(), 350), 1) << "the seventh gap";
  EXPECT_EQ(*std::max_element(inputs.begin(), inputs.end()), 356);
}

TEST_F(SpanFormatTest, NeedsATokenizerWithSentinelsThatTheModelKnows) {
  model_.set_vocab_size(356);
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.vocab_size (356) must be at least 357"),
                             HasSubstr("data.tokenizer byte"), HasSubstr("raise it")));
  model_.set_vocab_size(357);
  EXPECT_TRUE(MakeRowFormat(data_, model_).ok());
  model_.set_end_id(1);
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.end_id is 1"), HasSubstr("id 256")));
  data_.set_tokenizer(WriteTinyGpt2(folder_, kTinyMerges));
  EXPECT_THAT(Error(), AllOf(HasSubstr("data.tokenizer gpt2:"), HasSubstr("no sentinels"),
                             HasSubstr("spm:FILE")));
  data_.set_tokenizer("none");
  EXPECT_THAT(Error(), HasSubstr("data.tokenizer: unknown tokenizer 'none'"));
  model_.set_family(ModelConfig::gpt2);
  EXPECT_TRUE(MakeRowFormat(data_, model_).ok()) << "does not look at it";
}

TEST_F(SpanFormatTest, RefusesRowsThatCannotBeMade) {
  model_.set_sequence_length(2048);
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.sequence_length (2048)"), HasSubstr("114 gaps"),
                             HasSubstr("100 sentinels"), HasSubstr("data.mean_span_length")));
  data_.set_mean_span_length(4);
  EXPECT_TRUE(MakeRowFormat(data_, model_).ok());
  model_.set_sequence_length(2);
  EXPECT_THAT(Error(), AllOf(HasSubstr("inputs of 3 or 4 tokens"), HasSubstr("lengthen")));
  model_.set_sequence_length(4);
  EXPECT_TRUE(MakeRowFormat(data_, model_).ok());
  // Kept tokens and gaps are equally many, so that rows have odd lengths.
  data_.set_noise_density(0.9);
  data_.set_mean_span_length(1);
  EXPECT_THAT(Error(), AllOf(HasSubstr("data.noise_density 0.9"), HasSubstr("inputs of 3 or 5"),
                             HasSubstr("lower data.noise_density")));
}

TEST_F(SpanFormatTest, SplitsNeedTheTextOfARow) {
  const auto writer = *TokenFileWriter::Create(folder_ / "t", 257);
  EXPECT_TRUE(writer->Append(std::vector<int32_t>(150, 'a')).ok() && writer->EndDocument().ok() &&
              writer->Finish().ok());
  data_.add_train()->set_prefix(folder_ / "t");
  data_.set_validation_fraction(0.06);
  const auto splits = OpenSplits(data_, model_);
  ASSERT_TRUE(splits.ok()) << splits.status();
  EXPECT_EQ(splits->format->sizes().stride, 141);
  EXPECT_EQ(splits->validation[0].size(), 9);
  data_.set_validation_fraction(0.08);
  EXPECT_THAT(
      std::string(OpenSplits(data_, model_).status().message()),
      HasSubstr("138 tokens for training, but a row of model.sequence_length=128 needs 141"));
  data_.set_validation_fraction(0.01);
  EXPECT_THAT(std::string(OpenSplits(data_, model_).status().message()),
              HasSubstr("leaves none to validate on"));
  model_.set_vocab_size(300);
  EXPECT_EQ(ExitCodeOf(OpenSplits(data_, model_).status()), ExitCode::kConfig);
}

}  // namespace
}  // namespace hypermoe
