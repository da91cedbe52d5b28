#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/expert_order_arguments.h"

namespace hypermoe::cpu {

void OrderByExpert(const ExpertOrderArguments& in) {
  std::fill_n(in.counts, in.experts + 2, 0);
  int64_t* descents = in.counts + in.experts + 1;
  for (int64_t i = 0; i < in.choices; ++i) {
    const int64_t id = in.ids[i];
    TORCH_CHECK(id >= 0 && id < in.experts, "expert id ", id, " of token ", i, " is outside [0, ",
                in.experts, ")");
    ++in.counts[id];
    if (i > 0 && in.ids[i - 1] > id) ++*descents;
  }
  std::vector<int64_t> next(in.experts, 0);
  std::partial_sum(in.counts, in.counts + in.experts - 1, next.begin() + 1);
  for (int64_t i = 0; i < in.choices; ++i) {
    const int64_t position = next[in.ids[i]]++;
    in.order[position] = i;
    in.inverse[i] = position;
  }
}

}  // namespace hypermoe::cpu
