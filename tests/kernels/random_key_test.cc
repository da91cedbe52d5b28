#include "kernels/random_key.h"

#include <ATen/core/PhiloxRNGEngine.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

constexpr uint64_t kLargest = ~uint64_t{0};

// Random123's own known answer for Philox4x32-10 with the counter and the key 0.
TEST(RandomKeyTest, WordsAreThoseOfThePublishedGenerator) {
  const RandomWords words = RandomWordsAt({0, 0}, 0);
  EXPECT_EQ(words.words[0], 0x6627e8d5U);
  EXPECT_EQ(words.words[1], 0xe169c58dU);
  EXPECT_EQ(words.words[2], 0xbc57ac4cU);
  EXPECT_EQ(words.words[3], 0x9b00dbd8U);
}

TEST(RandomKeyTest, WordsAreThoseOfLibTorchsEngine) {
  uint64_t state = 1;
  const auto next = [&] { return state = MixBits(state + 0x9e3779b97f4a7c15ULL); };
  std::vector<uint64_t> numbers = {0, 1, 0xffffffffU, uint64_t{1} << 32, kLargest};
  for (int i = 0; i < 6; ++i) numbers.push_back(next());
  for (const uint64_t seed : numbers) {
    for (const uint64_t stream : numbers) {
      for (const uint64_t index : numbers) {
        at::philox_engine engine(seed, stream, index);
        for (const uint32_t word : RandomWordsAt({seed, stream}, index).words) {
          EXPECT_EQ(word, engine()) << seed << " " << stream << " " << index;
        }
      }
    }
  }
}

// What dropout relies on: word j of the engine's sequence without running through it.
TEST(RandomKeyTest, WordsAreReachedDirectly) {
  at::philox_engine engine(5, 9, 0);
  for (uint64_t j = 0; j < 1000; ++j) {
    EXPECT_EQ(RandomWordsAt({5, 9}, j / 4).words[j % 4], engine()) << j;
  }
}

// Checkpoints go on with the numbers that they began with: these must never change.
TEST(RandomKeyTest, DerivedKeysAreTheRecordedOnes) {
  EXPECT_EQ((RandomKey{0, 0}.Derive(0).stream), 0xa706dd2f4d197e6fULL);
  EXPECT_EQ((RandomKey{0, 0}.Derive(1).stream), 0x5e41ab087439611eULL);
  EXPECT_EQ((RandomKey{3, kLargest}.Derive(kLargest - 1).stream), 0x55f837a3bf8e8001ULL);
  const RandomKey key = RandomKey{3, 0}.Derive(1000).Derive(11).Derive("attention");
  EXPECT_EQ(key.stream, 0x75cb3ff150fa6c07ULL);
  EXPECT_EQ(key.seed, 3U);
}

}  // namespace
}  // namespace hypermoe
