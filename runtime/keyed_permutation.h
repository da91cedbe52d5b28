// A bijection of [0, size) for every key, computed one element at a time: an order of any number of
// things that is neither stored nor dependent on how they are cut over ranks.
#pragma once

#include <cstdint>

namespace hypermoe {

// A hash of (key, counter) with all bits well mixed: the output function of SplitMix64 (Steele,
// Lea, Flood, 2014). The values are part of what a run computes and never change.
uint64_t KeyedHash(uint64_t key, uint64_t counter);

// A Feistel network over the smallest even number of bits that holds size - 1; a result outside [0,
// size) is mapped again until it falls inside (cycle walking), fewer than four times on average.
class KeyedPermutation {
 public:
  // size >= 1.
  KeyedPermutation(uint64_t key, uint64_t size);
  // Where `index` < size goes.
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t key_, size_;
  int half_bits_ = 1;
};

}  // namespace hypermoe
