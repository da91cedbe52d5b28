#include "runtime/prefetcher.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>

namespace hypermoe {
namespace {

Batch Numbered(int64_t number) {
  Batch batch;
  batch.input_ids_BS = at::full({1, 1}, number, at::kLong);
  return batch;
}

int64_t NumberOf(const Batch& batch) { return batch.input_ids_BS.item<int64_t>(); }

TEST(PrefetcherTest, GivesTheBatchThatIsAskedForInAnyOrder) {
  Prefetcher prefetcher(Numbered);
  for (int64_t number = 0; number < 100; ++number)
    EXPECT_EQ(NumberOf(prefetcher.Take(number)), number);
  for (const int64_t number : {3, 3, 4, 3, 0, 1000000, 1000001, 7}) {
    EXPECT_EQ(NumberOf(prefetcher.Take(number)), number);
  }
}

TEST(PrefetcherTest, MakesTheNextBatchWhileTheCallerWorksAndNoMore) {
  std::promise<void> second_made;
  std::atomic<int64_t> made{0};
  Prefetcher prefetcher([&](int64_t number) {
    ++made;
    if (number == 1) second_made.set_value();
    return Numbered(number);
  });
  EXPECT_EQ(made, 0);  // nothing before it is known where to start
  prefetcher.Take(0);
  second_made.get_future().wait();  // without being asked for
  EXPECT_EQ(NumberOf(prefetcher.Take(1)), 1);
  EXPECT_EQ(NumberOf(prefetcher.Take(2)), 2);
  EXPECT_LE(made, 4);
}

TEST(PrefetcherTest, MakesBatchesOnAnotherThread) {
  std::vector<std::thread::id> threads;
  {
    Prefetcher prefetcher([&](int64_t number) {
      threads.push_back(std::this_thread::get_id());
      return Numbered(number);
    });
    for (int64_t number = 0; number < 5; ++number) prefetcher.Take(number);
  }
  for (const std::thread::id& thread : threads) {
    EXPECT_EQ(thread, threads[0]);
    EXPECT_NE(thread, std::this_thread::get_id());
  }
}

TEST(PrefetcherTest, AnExceptionComesOutOfTheTakeItBelongsToAndTheNextTakeTriesAgain) {
  std::atomic<bool> broken{true};
  Prefetcher prefetcher([&](int64_t number) {
    if (broken && number == 2) throw std::runtime_error("batch 2 cannot be read");
    return Numbered(number);
  });
  EXPECT_EQ(NumberOf(prefetcher.Take(1)), 1);
  try {
    prefetcher.Take(2);
    ADD_FAILURE() << "no exception";
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(std::string(error.what()), "batch 2 cannot be read");
  }
  EXPECT_THROW(prefetcher.Take(2), std::runtime_error);
  // Failed ahead, never asked for.
  EXPECT_EQ(NumberOf(prefetcher.Take(1)), 1);
  EXPECT_EQ(NumberOf(prefetcher.Take(7)), 7);
  broken = false;
  EXPECT_EQ(NumberOf(prefetcher.Take(2)), 2);
}

TEST(PrefetcherTest, EndsInEveryState) {
  { Prefetcher unused(Numbered); }
  for (int i = 0; i < 200; ++i) {
    Prefetcher prefetcher([](int64_t number) {
      if (number == 1) throw std::runtime_error("never asked for");
      return Numbered(number);
    });
    prefetcher.Take(0);  // the thread is making or has made batch 1, or has yet to start
  }
}

}  // namespace
}  // namespace hypermoe
