#include "kernels/keyed_random.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/PhiloxRNGEngine.h>

#include <cmath>
#include <numbers>

namespace hypermoe {
namespace {

// The finalizer of splitmix64: a bijection of 64 bits in which every input bit reaches every output
// bit.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr double kTwoToMinus53 = 1.0 / 9007199254740992.0;

// Two independent uniform numbers in [0, 1) for each index.
struct UniformPair {
  double first, second;
};

UniformPair UniformPairAt(const RandomKey& key, uint64_t index) {
  at::philox_engine engine(key.seed, key.stream, index);
  const uint64_t a = engine(), b = engine(), c = engine(), d = engine();
  return {static_cast<double>((a << 32 | b) >> 11) * kTwoToMinus53,
          static_cast<double>((c << 32 | d) >> 11) * kTwoToMinus53};
}

template <typename Value>
void Fill(const at::Tensor& tensor, int64_t begin, const Value& value) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(),
              "keyed random numbers fill contiguous CPU tensors");
  AT_DISPATCH_FLOATING_TYPES(tensor.scalar_type(), "keyed_random", [&] {
    scalar_t* data = tensor.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, tensor.numel(), 4096, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) data[i] = static_cast<scalar_t>(value(begin + i));
    });
  });
}

}  // namespace

RandomKey RandomKey::Derive(uint64_t part) const {
  return {seed, Mix(stream + 0x9e3779b97f4a7c15ULL + Mix(part + 0x9e3779b97f4a7c15ULL))};
}

RandomKey RandomKey::Derive(std::string_view part) const {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (unsigned char c : part) hash = (hash ^ c) * 0x100000001b3ULL;
  return Derive(hash);
}

double UniformAt(const RandomKey& key, uint64_t index) { return UniformPairAt(key, index).first; }

void FillNormal(const at::Tensor& tensor, const RandomKey& key, double std, int64_t begin) {
  Fill(tensor, begin, [&](int64_t index) {
    const UniformPair u = UniformPairAt(key, static_cast<uint64_t>(index));
    // Box and Muller; 1 - u lies in (0, 1], so that the logarithm is finite.
    return std * std::sqrt(-2.0 * std::log(1.0 - u.first)) *
           std::cos(2.0 * std::numbers::pi * u.second);
  });
}

void FillUniform(const at::Tensor& tensor, const RandomKey& key, double low, double high,
                 int64_t begin) {
  Fill(tensor, begin, [&](int64_t index) {
    return low + (high - low) * UniformAt(key, static_cast<uint64_t>(index));
  });
}

}  // namespace hypermoe
