// The order of training data under random mixtures, layouts and interruptions.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "runtime/dataset.h"
#include "runtime/prefetcher.h"
#include "tests/support/counting_file.h"

namespace hypermoe {
namespace {

// The rows of a mixture are those of each file alone, in the file's own order.
TEST(MixtureTest, EachFileHasEpochsOfItsOwn) {
  const WeightedTokens a = CountedTokens(0, 300, 1, 30), b = CountedTokens(1, 100, 3);
  const TrainingRows both({a, b}, 7, 4, 5), alone({a}, 7, 4, 5);
  EXPECT_EQ(both.WindowsPerEpoch(0), 270 / 7 - 1);
  EXPECT_EQ(both.WindowsPerEpoch(1), 100 / 7 - 1);
  std::vector<int64_t> rows_of(2, 0);
  for (int64_t r = 0; r < 400; ++r) {
    const TrainingRows::Window window = both.WindowOf(r);
    const int64_t number = rows_of[static_cast<size_t>(window.file)]++;
    EXPECT_EQ(window.epoch, number / both.WindowsPerEpoch(window.file));
    if (window.file == 0) {
      EXPECT_EQ(window.first, alone.WindowOf(number).first);
    }
    const Batch batch = both.Rows(r / 4, r % 4, r % 4 + 1);
    EXPECT_EQ(batch.input_ids_BS.data_ptr<int64_t>()[0],
              window.first + (window.file == 0 ? 30 : kFileTokens));
  }
  EXPECT_EQ(rows_of, (std::vector<int64_t>{100, 300}));
}

TEST(MixtureTest, FilesOfOneLengthHaveUnrelatedOrders) {
  const TrainingRows rows({CountedTokens(0, 5000, 1), CountedTokens(1, 5000, 1)}, 5, 2, 1);
  int same = 0;
  for (int64_t r = 0; r < 1000; r += 2)
    same += rows.WindowOf(r).first / 5 == rows.WindowOf(r + 1).first / 5;
  EXPECT_LT(same, 10);
}

struct Case {
  std::vector<WeightedTokens> files;
  int64_t sequence_length = 0;
  TrainConfig train;  // batch_size; micro_batches changes from process to process
  uint64_t seed = 0;
  int64_t steps = 0;
};

class DataOrderTest : public testing::Test {
 protected:
  int64_t Uniform(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  Case RandomCase() {
    Case result;
    result.sequence_length = Uniform(1, 9);
    for (int64_t file = 0; file < Uniform(1, 4); ++file) {
      const int64_t tokens = result.sequence_length * Uniform(1, 12) + Uniform(1, 9);
      const int64_t begin = Uniform(0, 5);
      const double weight =
          static_cast<double>(Uniform(1, 20)) / static_cast<double>(Uniform(1, 3));
      result.files.push_back(CountedTokens(file, begin + tokens, weight, begin));
    }
    result.train.set_batch_size(static_cast<int32_t>(Uniform(1, 12)));
    result.seed = random_();
    result.steps = Uniform(1, 20);
    return result;
  }

  TrainingRows RowsOf(const Case& run) {
    return {run.files, run.sequence_length, run.train.batch_size(), run.seed};
  }

  // Steps [begin, end) of `run` by one process a rank, each with batches of its own: the first
  // token of every row of all time, in order of rows. What rows held before is forgotten.
  void Train(Case run, int64_t begin, int64_t end, std::vector<int64_t>* first_tokens) {
    const int64_t batch_size = run.train.batch_size();
    std::fill(first_tokens->begin() + begin * batch_size, first_tokens->begin() + end * batch_size,
              -1);
    const int world_size = static_cast<int>(Uniform(1, 8));
    const int64_t unit = Uniform(1, 3);
    run.train.set_micro_batches(static_cast<int32_t>(Uniform(1, batch_size)));
    for (int rank = 0; rank < world_size; ++rank) {
      const TrainingRows rows = RowsOf(run);
      for (int64_t step = begin; step < end; ++step) {
        for (int64_t micro = 0; micro < run.train.micro_batches(); ++micro) {
          const RowRange mine = RowsOfMicroBatch(run.train, micro, world_size, rank, unit);
          const Batch batch = rows.Rows(step, mine.begin, mine.end);
          Record(batch, step * batch_size, first_tokens);
        }
      }
    }
  }

  // The first token of every row of `run`, from the definition.
  std::vector<int64_t> FirstTokens(const Case& run) {
    const TrainingRows rows = RowsOf(run);
    std::vector<int64_t> first_tokens;
    for (int64_t row = 0; row < run.steps * run.train.batch_size(); ++row) {
      const TrainingRows::Window window = rows.WindowOf(row);
      first_tokens.push_back(kFileTokens * window.file + window.first +
                             run.files[static_cast<size_t>(window.file)].tokens.begin);
    }
    return first_tokens;
  }

  void Record(const Batch& batch, int64_t rows_before, std::vector<int64_t>* first_tokens) {
    const int64_t* row_ids = batch.row_ids_B.data_ptr<int64_t>();
    const int64_t* inputs = batch.input_ids_BS.data_ptr<int64_t>();
    const int64_t* labels = batch.labels_BS.data_ptr<int64_t>();
    const int64_t length = batch.input_ids_BS.size(1);
    for (int64_t row = 0; row < batch.row_ids_B.size(0); ++row) {
      int64_t& first = first_tokens->at(static_cast<size_t>(rows_before + row_ids[row]));
      ASSERT_EQ(first, -1) << "two ranks or micro-batches have row " << row_ids[row];
      first = inputs[row * length];
      for (int64_t s = 0; s < length; ++s) ASSERT_EQ(labels[row * length + s], first + s + 1);
    }
  }

  std::mt19937_64 random_{20240217};
};

// A job is stopped or killed after any step, and the next one, of any size, goes on from there or
// from an earlier checkpoint.
TEST_F(DataOrderTest, IsTheSameForEveryWorldSizeAndChainOfResumes) {
  for (int number = 0; number < 2000; ++number) {
    const Case run = RandomCase();
    const std::vector<int64_t> expected = FirstTokens(run);
    std::vector<int64_t> trained(expected.size(), -1);
    for (int64_t begin = 0, end = 0; end < run.steps; begin = Uniform(0, end)) {
      const int64_t stop = Uniform(begin, run.steps);
      Train(run, begin, stop, &trained);
      end = std::max(end, stop);
      const auto done = static_cast<std::ptrdiff_t>(end * run.train.batch_size());
      ASSERT_TRUE(std::equal(trained.begin(), trained.begin() + done, expected.begin()))
          << "case " << number << ", steps " << begin << " to " << stop;
    }
  }
}

TEST_F(DataOrderTest, NoWindowOfAnEpochIsLostOrRepeated) {
  for (int number = 0; number < 1000; ++number) {
    const Case run = RandomCase();
    const TrainingRows rows = RowsOf(run);
    const int64_t num_rows = run.steps * run.train.batch_size();
    std::map<std::pair<int64_t, int64_t>, std::set<int64_t>> epochs;  // by file and epoch
    for (int64_t row = 0; row < num_rows; ++row) {
      const TrainingRows::Window window = rows.WindowOf(row);
      ASSERT_TRUE(epochs[std::pair(window.file, window.epoch)].insert(window.first).second)
          << "case " << number << ": a window is repeated";
    }
    for (const auto& [key, starts] : epochs) {
      const auto [file, epoch] = key;
      const int64_t tokens = run.files[static_cast<size_t>(file)].tokens.size();
      // Complete unless it is the file's last.
      if (epochs.count(std::pair(file, epoch + 1)) > 0) {
        ASSERT_EQ(static_cast<int64_t>(starts.size()), rows.WindowsPerEpoch(file));
      }
      ASSERT_TRUE(epoch == 0 || epochs.count(std::pair(file, epoch - 1)) > 0);
      for (const int64_t start : starts) {
        ASSERT_EQ((start - *starts.begin()) % run.sequence_length, 0);
        ASSERT_LE(start + run.sequence_length + 1, tokens);
      }
      // What an epoch leaves out of the file, for its offset and at the end, is less than two
      // windows.
      ASSERT_GT((rows.WindowsPerEpoch(file) + 2) * run.sequence_length, tokens);
    }
  }
}

// A trainer takes its batches through a Prefetcher: from another thread, one ahead.
TEST_F(DataOrderTest, IsTheSameWithPrefetching) {
  for (int number = 0; number < 50; ++number) {
    const Case run = RandomCase();
    const TrainingRows rows = RowsOf(run);
    const auto make = [&](int64_t step) { return rows.Rows(step, 0, run.train.batch_size()); };
    Prefetcher prefetcher(make);
    const int64_t start = Uniform(0, 100);
    for (int64_t step = start; step < start + run.steps; ++step) {
      const Batch fetched = prefetcher.Take(step), made = make(step);
      EXPECT_TRUE(fetched.input_ids_BS.equal(made.input_ids_BS));
      EXPECT_TRUE(fetched.labels_BS.equal(made.labels_BS));
      EXPECT_TRUE(fetched.row_ids_B.equal(made.row_ids_B));
    }
  }
}

}  // namespace
}  // namespace hypermoe
