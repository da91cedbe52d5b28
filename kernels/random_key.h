// What keyed random numbers are made from (keyed_random.h): keys and random bits, in integers, so
// that a CPU and a GPU agree in every bit. Free of LibTorch.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/host_device.h"

namespace hypermoe {

// The finalizer of splitmix64: a bijection of 64 bits in which every input bit reaches every output
// bit.
HYPERMOE_HOST_DEVICE inline uint64_t MixBits(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Names one sequence of random numbers.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t stream = 0;

  // The key of a part of what this key stands for: Derive(step).Derive(layer).Derive("attention").
  HYPERMOE_HOST_DEVICE RandomKey Derive(uint64_t part) const {
    return {seed, MixBits(stream + 0x9e3779b97f4a7c15ULL + MixBits(part + 0x9e3779b97f4a7c15ULL))};
  }
  RandomKey Derive(std::string_view part) const;
};

struct RandomWords {
  uint32_t words[4];
};

// The four words at `index` of the sequence: Philox4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", 2011), of the counter (index, stream) and the seed as its key.
HYPERMOE_HOST_DEVICE inline RandomWords RandomWordsAt(const RandomKey& key, uint64_t index) {
  auto c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32);
  auto c2 = static_cast<uint32_t>(key.stream), c3 = static_cast<uint32_t>(key.stream >> 32);
  auto k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t even = uint64_t{0xD2511F53U} * c0, odd = uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<uint32_t>(odd >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(even >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(odd);
    c3 = static_cast<uint32_t>(even);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

// Two independent uniform numbers in [0, 1) for each index, 53 bits each.
struct UniformPair {
  double first, second;
};

HYPERMOE_HOST_DEVICE inline UniformPair UniformPairAt(const RandomKey& key, uint64_t index) {
  constexpr double kTwoToMinus53 = 1.0 / 9007199254740992.0;
  const RandomWords random = RandomWordsAt(key, index);
  const auto uniform = [](uint64_t high, uint64_t low) {
    return static_cast<double>((high << 32 | low) >> 11) * kTwoToMinus53;
  };
  return {uniform(random.words[0], random.words[1]), uniform(random.words[2], random.words[3])};
}

}  // namespace hypermoe
