#include "runtime/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "runtime/prepare.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using ::testing::HasSubstr;

std::vector<int64_t> Values(const at::Tensor& tensor) {
  const int64_t* data = tensor.data_ptr<int64_t>();
  return {data, data + tensor.numel()};
}

class DatasetTest : public ::testing::Test {
 protected:
  // A token file whose id at position i is i.
  std::string Count(const std::string& name, int32_t tokens) {
    const auto writer = *TokenFileWriter::Create(folder_ / name, tokens);
    std::vector<int32_t> ids(static_cast<size_t>(tokens));
    for (int32_t i = 0; i < tokens; ++i) ids[static_cast<size_t>(i)] = i;
    EXPECT_TRUE(writer->Append(ids).ok() && writer->EndDocument().ok() && writer->Finish().ok());
    return folder_ / name;
  }
  TokenRange Range(int32_t tokens) { return *OpenTokens(Count("t", tokens), tokens); }

  absl::StatusOr<Splits> Open(const std::string& train, const std::string& validation,
                              double fraction, int32_t sequence_length,
                              int32_t vocab_size = 1000000) {
    DataConfig data;
    if (!train.empty()) data.add_train()->set_prefix(train);
    data.set_validation(validation);
    data.set_validation_fraction(fraction);
    return Open(data, sequence_length, vocab_size);
  }
  absl::StatusOr<Splits> Open(const DataConfig& data, int32_t sequence_length,
                              int32_t vocab_size = 1000000) {
    ModelConfig model;
    model.set_sequence_length(sequence_length);
    model.set_vocab_size(vocab_size);
    return OpenSplits(data, model);
  }

  TemporaryFolder folder_;
};

TEST_F(DatasetTest, AnEpochVisitsEveryWindowOnceAtOneOffset) {
  constexpr int64_t kSequence = 7;
  const TokenRange range = Range(200);
  const TrainingRows rows({{range}}, kSequence, 4, 1);
  const int64_t windows = 200 / kSequence - 1;
  std::set<std::vector<int64_t>> orders;
  std::set<int64_t> offsets;
  for (int64_t epoch = 0; epoch < 40; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < windows; ++i) order.push_back(rows.WindowOf(epoch * windows + i).first);
    orders.insert(order);
    std::sort(order.begin(), order.end());
    offsets.insert(order[0]);
    EXPECT_GE(order[0], 0);
    EXPECT_LT(order[0], kSequence);
    for (int64_t i = 0; i < windows; ++i)
      EXPECT_EQ(order[static_cast<size_t>(i)], order[0] + i * kSequence);
    EXPECT_LE(order.back() + kSequence + 1, 200);
  }
  EXPECT_EQ(orders.size(), 40u);
  EXPECT_EQ(offsets.size(), static_cast<size_t>(kSequence));
}

TEST_F(DatasetTest, RowsHoldTheirWindowAndTheNextTokens) {
  TokenRange range = Range(200);
  range.begin = 20;
  range.end = 100;
  const TrainingRows rows({{range}}, 5, 4, 3);
  const Batch batch = rows.Rows(6, 1, 3);
  EXPECT_EQ(Values(batch.row_ids_B), (std::vector<int64_t>{1, 2}));
  for (int64_t row = 1; row < 3; ++row) {
    const int64_t first = 20 + rows.WindowOf(6 * 4 + row).first;
    for (int64_t s = 0; s < 5; ++s) {
      EXPECT_EQ(Values(batch.input_ids_BS)[static_cast<size_t>((row - 1) * 5 + s)], first + s);
      EXPECT_EQ(Values(batch.labels_BS)[static_cast<size_t>((row - 1) * 5 + s)], first + s + 1);
    }
  }
  const Batch none = rows.Rows(6, 2, 2);
  EXPECT_EQ(none.input_ids_BS.sizes(), (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(none.row_ids_B.size(0), 0);
}

TEST_F(DatasetTest, TheOrderIsTheSameForEveryWayOfCuttingABatch) {
  const TrainingRows rows({{Range(500)}}, 6, 8, 9);
  for (int64_t step = 0; step < 20; ++step) {
    const Batch whole = rows.Rows(step, 0, 8);
    for (const std::vector<int64_t>& cuts :
         std::vector<std::vector<int64_t>>{{0, 4, 8}, {0, 1, 1, 8}, {0, 3, 5, 8}}) {
      std::vector<int64_t> inputs, labels, row_ids;
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        const Batch part = rows.Rows(step, cuts[i], cuts[i + 1]);
        for (const auto& [to, from] : {std::pair(&inputs, part.input_ids_BS),
                                       {&labels, part.labels_BS},
                                       {&row_ids, part.row_ids_B}}) {
          const std::vector<int64_t> values = Values(from);
          to->insert(to->end(), values.begin(), values.end());
        }
      }
      EXPECT_EQ(inputs, Values(whole.input_ids_BS));
      EXPECT_EQ(labels, Values(whole.labels_BS));
      EXPECT_EQ(row_ids, Values(whole.row_ids_B));
    }
  }
}

TEST_F(DatasetTest, SeedsGiveDifferentOrders) {
  const TokenRange range = Range(500);
  const TrainingRows one({{range}}, 6, 8, 1), two({{range}}, 6, 8, 2), again({{range}}, 6, 8, 1);
  EXPECT_NE(Values(one.Rows(0, 0, 8).input_ids_BS), Values(two.Rows(0, 0, 8).input_ids_BS));
  EXPECT_EQ(Values(one.Rows(0, 0, 8).input_ids_BS), Values(again.Rows(0, 0, 8).input_ids_BS));
}

TEST_F(DatasetTest, TheShortestRangesWork) {
  for (int32_t tokens = 6; tokens <= 16; ++tokens) {
    const TrainingRows rows({{Range(tokens)}}, 5, 2, 1);
    for (int64_t r = 0; r < 50; ++r) {
      EXPECT_GE(rows.WindowOf(r).first, 0);
      EXPECT_LE(rows.WindowOf(r).first + 6, tokens);
    }
  }
}

TEST_F(DatasetTest, ValidationPredictsEachTokenExactlyOnce) {
  for (int64_t begin : {0, 1, 13}) {
    for (int64_t end : {14, 20, 21, 29}) {
      TokenRange range = Range(30);
      range.begin = begin;
      range.end = end;
      const ValidationWindows windows({range}, 7);
      std::map<int64_t, int> predicted;
      // In two strided parts, as two ranks would.
      for (int64_t part = 0; part < 2; ++part) {
        const Batch batch = windows.Windows(part, windows.size(), 2);
        const std::vector<int64_t> inputs = Values(batch.input_ids_BS),
                                   labels = Values(batch.labels_BS);
        for (size_t i = 0; i < labels.size(); ++i) {
          if (labels[i] == kIgnoredLabel) continue;
          EXPECT_EQ(inputs[i], labels[i] - 1);
          ++predicted[labels[i]];
        }
      }
      EXPECT_EQ(static_cast<int64_t>(predicted.size()), windows.num_predictions());
      EXPECT_EQ(predicted.begin()->first, std::max<int64_t>(begin, 1));
      EXPECT_EQ(predicted.rbegin()->first, end - 1);
      for (const auto& [token, times] : predicted) EXPECT_EQ(times, 1) << token;
    }
  }
}

TEST_F(DatasetTest, ValidationRowIdsAreWindowNumbers) {
  const ValidationWindows windows({Range(100)}, 9);
  EXPECT_EQ(windows.size(), 11);
  EXPECT_EQ(Values(windows.Windows(1, 11, 4).row_ids_B), (std::vector<int64_t>{1, 5, 9}));
  EXPECT_EQ(Values(windows.Windows(3, 3).row_ids_B), (std::vector<int64_t>{}));
}

TEST_F(DatasetTest, TheLastTenthOfTinyShakespeareIsPredictedOnce) {
  PrepareOptions options;
  options.inputs = {HYPERMOE_SOURCE_DIR "/configs/data/tiny_shakespeare/input.txt"};
  options.output = folder_ / "s";
  ASSERT_TRUE(Prepare(options, nullptr).ok());
  const auto splits = Open(folder_ / "s", "", 0.1, 64, 257);
  ASSERT_TRUE(splits.ok()) << splits.status();
  EXPECT_EQ(splits->validation[0].size(), 111539);
  EXPECT_EQ(splits->train[0].tokens.size(), 1115395 - 111539);
  EXPECT_EQ(splits->validation[0].begin, splits->train[0].tokens.end);
  const ValidationWindows windows(splits->validation, 64);
  EXPECT_EQ(windows.num_predictions(), 111539);
  std::vector<int64_t> labels;
  for (int64_t window = 0; window < windows.size(); ++window) {
    for (const int64_t label : Values(windows.Windows(window, window + 1).labels_BS)) {
      if (label != kIgnoredLabel) labels.push_back(label);
    }
  }
  std::vector<int64_t> tokens(111539);
  splits->validation[0].file->Read(splits->validation[0].begin, 111539, tokens.data());
  EXPECT_EQ(labels, tokens);
}

TEST_F(DatasetTest, SplitsComeFromOneFileOrTwo) {
  const std::string a = Count("a", 100), b = Count("b", 50);
  const auto one = Open(a, "", 0.25, 10);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->train[0].tokens.end, 75);
  EXPECT_EQ(one->validation[0].begin, 75);
  EXPECT_EQ(one->validation[0].end, 100);
  const auto two = Open(a, b, 0.25, 10);
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->train[0].tokens.size(), 100);
  EXPECT_EQ(two->validation[0].size(), 50);
  EXPECT_NE(one->fingerprint, two->fingerprint);
  EXPECT_NE(one->fingerprint, Open(a, "", 0.26, 10)->fingerprint);
  EXPECT_EQ(one->fingerprint, Open(Count("copy", 100), "", 0.25, 10)->fingerprint);
}

TEST_F(DatasetTest, ValidationWindowsHoldOneRangeEach) {
  const TokenRange all = Range(100);
  // 3, 0, 1 and 2 windows of at most 7 predictions.
  const std::vector<TokenRange> ranges = {
      {all.file, 0, 20}, {all.file, 0, 1}, {all.file, 40, 43}, {all.file, 50, 60}};
  const ValidationWindows windows(ranges, 7);
  EXPECT_EQ(windows.size(), 3 + 0 + 1 + 2);
  EXPECT_EQ(windows.num_predictions(), 19 + 0 + 3 + 10);
  std::vector<int64_t> predicted;
  for (int64_t window = 0; window < windows.size(); ++window) {
    const Batch batch = windows.Windows(window, window + 1);
    const std::vector<int64_t> inputs = Values(batch.input_ids_BS),
                               labels = Values(batch.labels_BS);
    for (size_t s = 0; s < labels.size(); ++s) {
      EXPECT_EQ(inputs[s], labels[s] == kIgnoredLabel ? 0 : labels[s] - 1);
      if (labels[s] != kIgnoredLabel) predicted.push_back(labels[s]);
    }
  }
  std::vector<int64_t> expected;
  for (const TokenRange& range : ranges) {
    for (int64_t token = std::max<int64_t>(1, range.begin); token < range.end; ++token)
      expected.push_back(token);
  }
  EXPECT_EQ(predicted, expected);
  EXPECT_EQ(Values(windows.Windows(1, 6, 2).row_ids_B), (std::vector<int64_t>{1, 3, 5}));
  EXPECT_EQ(Values(windows.Windows(1, 6, 2).labels_BS)[7], 40);
}

TEST_F(DatasetTest, EachFileGivesItsLastPartToValidation) {
  DataConfig data;
  data.set_validation_fraction(0.25);
  data.add_train()->set_prefix(Count("a", 100));
  data.add_train()->set_prefix(Count("b", 50));
  data.mutable_train(1)->set_weight(2.5);
  const auto splits = Open(data, 10);
  ASSERT_TRUE(splits.ok()) << splits.status();
  ASSERT_EQ(splits->train.size(), 2u);
  EXPECT_EQ(splits->train[0].tokens.end, 75);
  EXPECT_EQ(splits->train[1].tokens.end, 38);
  EXPECT_EQ(splits->train[0].weight, 1);
  EXPECT_EQ(splits->train[1].weight, 2.5);
  EXPECT_EQ(NumTokens(splits->train), 113);
  ASSERT_EQ(splits->validation.size(), 2u);
  EXPECT_EQ(splits->validation[0].size(), 25);
  EXPECT_EQ(splits->validation[1].begin, 38);

  // The fingerprint knows all files, their weights and their order.
  std::set<std::string> fingerprints = {splits->fingerprint};
  data.mutable_train(1)->set_weight(2.5000000000000004);
  fingerprints.insert(Open(data, 10)->fingerprint);
  data.mutable_train()->SwapElements(0, 1);
  fingerprints.insert(Open(data, 10)->fingerprint);
  data.mutable_train(1)->set_prefix(Count("c", 101));
  fingerprints.insert(Open(data, 10)->fingerprint);
  data.set_validation(Count("d", 20));
  EXPECT_EQ(Open(data, 10)->validation.size(), 1u);
  EXPECT_EQ(NumTokens(Open(data, 10)->train), 151);
  fingerprints.insert(Open(data, 10)->fingerprint);
  EXPECT_EQ(fingerprints.size(), 5u);

  data.mutable_train(1)->set_prefix(Count("e", 10));
  EXPECT_THAT(std::string(Open(data, 10).status().message()),
              HasSubstr("e has 10 tokens for training"));
}

TEST_F(DatasetTest, SplitsThatCannotBeUsedAreErrors) {
  const std::string a = Count("a", 100);
  const auto error = [&](const absl::StatusOr<Splits>& splits, ExitCode code) {
    EXPECT_EQ(ExitCodeOf(splits.status()), code);
    return std::string(splits.status().message());
  };
  EXPECT_THAT(error(Open("", "", 0.1, 10), ExitCode::kConfig), HasSubstr("data.train"));
  EXPECT_THAT(error(Open(folder_ / "none", "", 0.1, 10), ExitCode::kIo), HasSubstr("none.idx"));
  EXPECT_THAT(error(Open(a, "", 0.1, 10, 60), ExitCode::kBadData), HasSubstr("token 60 is id 60"));
  EXPECT_THAT(error(Open(a, "", 0.1, 90), ExitCode::kBadData),
              HasSubstr("has 90 tokens for training"));
  EXPECT_TRUE(Open(a, "", 0.1, 89).ok());
  EXPECT_THAT(error(Open(a, "", 0.009, 10), ExitCode::kBadData),
              HasSubstr("data.validation_fraction=0.009"));
  EXPECT_TRUE(Open(a, "", 0.01, 10).ok());
  EXPECT_THAT(error(Open(a, Count("one", 1), 0, 10), ExitCode::kBadData),
              HasSubstr("data.validation="));
}

}  // namespace
}  // namespace hypermoe
