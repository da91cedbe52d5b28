#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/element_type_of.h"
#include "kernels/keyed_random_arguments.h"

namespace hypermoe::cpu {

void KeyedFill(const KeyedFillArguments& in) {
  constexpr int64_t kGrain = 4096;
  WithElementType(in.element, [&](auto element, auto) {
    using Element = decltype(element);
    at::parallel_for(0, in.rows * in.width, kGrain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t row = begin / in.width, first = row * in.width;
        const int64_t row_end = std::min(end, first + in.width);
        const RandomKey key = in.KeyOfRow(row);
        for (; begin < row_end; ++begin) {
          static_cast<Element*>(in.data)[begin] =
              static_cast<Element>(in.NumberAt(key, begin - first));
        }
      }
    });
  });
}

}  // namespace hypermoe::cpu
