#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/element_type_of.h"
#include "kernels/grouped_rows_arguments.h"

namespace hypermoe {
namespace {

constexpr int64_t kGrainElements = 1 << 14;

int64_t GroupOfRow(const GroupedRows& in, int64_t row) {
  return std::upper_bound(in.ends, in.ends + in.groups, row) - in.ends;
}

template <typename Sum>
Sum Activated(Sum x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return std::max(x, Sum{0});
    case Activation::kGelu:
      return x * Sum{0.5} * (1 + std::erf(x * static_cast<Sum>(1 / std::numbers::sqrt2)));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:
      break;
  }
  const auto slope = static_cast<Sum>(std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
  const auto cubic = static_cast<Sum>(0.044715);
  return x * Sum{0.5} * (1 + std::tanh(slope * (x + cubic * x * x * x)));
}

template <typename Element, typename Sum>
void AddAndActivate(const GroupedRows& in, Element* pre, const Element* bias, Activation activation,
                    Element* hidden) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, in.width));
  at::parallel_for(0, in.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Element* own = bias == nullptr ? nullptr : bias + GroupOfRow(in, r) * in.width;
      for (int64_t f = 0; f < in.width; ++f) {
        const int64_t i = r * in.width + f;
        const Sum sum = static_cast<Sum>(pre[i]) + (own == nullptr ? 0 : static_cast<Sum>(own[f]));
        pre[i] = static_cast<Element>(sum);
        if (hidden != nullptr) hidden[i] = static_cast<Element>(Activated(sum, activation));
      }
    }
  });
}

template <typename Element, typename Sum>
void SumOfGroups(const GroupedRows& in, const Element* rows, Sum* sums) {
  at::parallel_for(0, in.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      Sum* out = sums + g * in.width;
      std::fill_n(out, in.width, Sum{0});
      for (int64_t r = g == 0 ? 0 : in.ends[g - 1]; r < in.ends[g]; ++r) {
        for (int64_t f = 0; f < in.width; ++f) out[f] += static_cast<Sum>(rows[r * in.width + f]);
      }
    }
  });
}

}  // namespace

namespace cpu {

void AddBiasAndActivate(const GroupedRows& in, void* pre, const void* bias, Activation activation,
                        void* hidden) {
  WithElementType(in.element, [&](auto element, auto sum) {
    using Element = decltype(element);
    AddAndActivate<Element, decltype(sum)>(in, static_cast<Element*>(pre),
                                           static_cast<const Element*>(bias), activation,
                                           static_cast<Element*>(hidden));
  });
}

void SumRowsOfGroups(const GroupedRows& in, const void* rows, void* sums) {
  WithElementType(in.element, [&](auto element, auto sum) {
    using Element = decltype(element);
    SumOfGroups(in, static_cast<const Element*>(rows), static_cast<decltype(sum)*>(sums));
  });
}

}  // namespace cpu
}  // namespace hypermoe
