#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/keyed_dropout_arguments.h"

namespace hypermoe::cpu {

void DropoutMask(const DropoutMaskArguments& in) {
  at::parallel_for(0, in.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const RandomKey key = in.KeyOfRow(row);
      uint8_t* kept = in.kept + row * in.width;
      for (int64_t j = 0; j < in.width; j += kWordsAtIndex) {
        const RandomWords random = RandomWordsAt(key, static_cast<uint64_t>(j / kWordsAtIndex));
        const int64_t count = std::min<int64_t>(kWordsAtIndex, in.width - j);
        for (int64_t i = 0; i < count; ++i) kept[j + i] = in.IsKept(random.words[i]);
      }
    }
  });
}

}  // namespace hypermoe::cpu
