#include <cstdint>
#include <type_traits>

#include "kernels/cuda_stream.h"
#include "kernels/cuda_warp.cuh"
#include "kernels/route_tokens_arguments.h"

namespace hypermoe::cuda {
namespace {

// A warp takes a token, each of its lanes every 32nd expert. Up to kSlots experts a lane keeps in
// registers; with kSlots = 0 it keeps any number in the row that it writes, where no other lane
// reads them.
constexpr int kWarpsPerBlock = 8;

template <int kSlots, typename Element>
class LaneValues {
 public:
  __device__ LaneValues(Element*, int experts) : experts_(experts) {}
  // Calls body(expert, value) for every expert of this lane.
  template <typename Body>
  __device__ void ForEach(const Body& body) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const int n = static_cast<int>(threadIdx.x) % kWarp + i * kWarp;
      if (n < experts_) body(n, values_[i]);
    }
  }
  __device__ void Store(Element* row) {
    ForEach([&](int n, Element value) { row[n] = value; });
  }

 private:
  Element values_[kSlots];
  int experts_;
};

template <typename Element>
class LaneValues<0, Element> {
 public:
  __device__ LaneValues(Element* row, int experts) : row_(row), experts_(experts) {}
  template <typename Body>
  __device__ void ForEach(const Body& body) {
    for (int n = threadIdx.x % kWarp; n < experts_; n += kWarp) body(n, row_[n]);
  }
  __device__ void Store(Element*) {}

 private:
  Element* row_;
  int experts_;
};

// Without those that are NaN, unless all are.
template <typename Element>
__device__ Element MaxOfWarp(Element value) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) {
    value = fmax(value, __shfl_xor_sync(~0U, value, half));
  }
  return value;
}

template <typename Element>
struct Choice {
  Element probability;
  int expert;

  __device__ bool IsBefore(const Choice& other) const {
    return probability > other.probability ||
           (probability == other.probability && expert < other.expert);
  }
};

// The first choice behind `last`, for every lane. Probabilities are not NaN.
template <int kSlots, typename Element>
__device__ Choice<Element> NextChoice(LaneValues<kSlots, Element>& probs,
                                      const Choice<Element>& last, int experts) {
  Choice<Element> best = {-1, experts};  // behind all
  probs.ForEach([&](int n, Element value) {
    const Choice<Element> choice = {value, n};
    if (last.IsBefore(choice) && choice.IsBefore(best)) best = choice;
  });
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) {
    const Choice<Element> other = {__shfl_xor_sync(~0U, best.probability, half),
                                   __shfl_xor_sync(~0U, best.expert, half)};
    if (other.IsBefore(best)) best = other;
  }
  return best;
}

template <typename Element>
__device__ Element NotANumber() {
  return static_cast<Element>(__int_as_float(0x7fffffff));
}

struct Sizes {
  int64_t tokens;
  int experts, choices;
  bool renormalize;

  explicit Sizes(const RouteTokensSizes& sizes)
      : tokens(sizes.tokens),
        experts(static_cast<int>(sizes.experts)),
        choices(static_cast<int>(sizes.choices)),
        renormalize(sizes.renormalize) {}
};

__device__ int64_t TokenOfWarp() {
  return int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / kWarp;
}

template <int kSlots, typename Element>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    Forward(Sizes sizes, const Element* __restrict__ logits, const int64_t* __restrict__ chosen,
            Element* all_probs, Element* all_gates, Element* __restrict__ log_sum,
            int64_t* __restrict__ ids) {
  const int64_t token = TokenOfWarp();
  if (token >= sizes.tokens) return;
  const int lane = LaneOfWarp();
  const Element* row = logits + token * sizes.experts;
  Element* probs_row = all_probs + token * sizes.experts;
  Element* gates = all_gates + token * sizes.choices;
  const int64_t first_choice = token * sizes.choices;

  LaneValues<kSlots, Element> probs(probs_row, sizes.experts);
  Element top = NotANumber<Element>();
  probs.ForEach([&](int n, Element& value) {
    value = row[n];
    top = fmax(top, value);
  });
  top = MaxOfWarp(top);
  Element sum = 0;
  probs.ForEach([&](int, Element& value) {
    value = exp(value - top);
    sum += value;
  });
  sum = SumOfWarp(sum);
  probs.ForEach([&](int, Element& value) { value /= sum; });
  probs.Store(probs_row);
  if (lane == 0) log_sum[token] = top + log(sum);

  // NaN for every lane if it is for one, and then so are all probabilities.
  const bool ordered = sum == sum;
  Choice<Element> choice = {2, -1};  // before all
  Element chosen_sum = 0;
  for (int k = 0; k < sizes.choices; ++k) {
    if (chosen != nullptr) {
      const int64_t id = chosen[first_choice + k];
      Element found = 0;
      probs.ForEach([&](int n, Element value) {
        if (n == id) found = value;
      });
      // One lane has it; the others add nothing.
      choice.probability = SumOfWarp(found);
      if (id < 0 || id >= sizes.experts) choice.probability = NotANumber<Element>();
    } else {
      choice = ordered ? NextChoice(probs, choice, sizes.experts)
                       : Choice<Element>{NotANumber<Element>(), k};
      if (lane == 0) ids[first_choice + k] = choice.expert;
    }
    chosen_sum += choice.probability;
    if (k % kWarp == lane) gates[k] = choice.probability;
  }
  if (!sizes.renormalize) return;
  // Each lane those that it wrote.
  for (int k = lane; k < sizes.choices; k += kWarp) gates[k] /= chosen_sum;
}

// route_tokens_cpu.cc has the equations.
template <int kSlots, typename Element>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    Backward(Sizes sizes, const Element* __restrict__ all_probs,
             const int64_t* __restrict__ all_ids, const Element* __restrict__ grad_probs,
             const Element* __restrict__ grad_gate, const Element* __restrict__ grad_log_sum,
             Element* grad_logits) {
  const int64_t token = TokenOfWarp();
  if (token >= sizes.tokens) return;
  const int lane = LaneOfWarp();
  const int64_t row = token * sizes.experts;
  const Element* probs = all_probs + row;
  const int64_t* ids = all_ids + token * sizes.choices;
  const Element* of_gate = grad_gate == nullptr ? nullptr : grad_gate + token * sizes.choices;

  Element chosen_sum = 1, mean_of_gates = 0;
  if (of_gate != nullptr && sizes.renormalize) {
    chosen_sum = 0;
    for (int k = lane; k < sizes.choices; k += kWarp) {
      const int64_t id = ids[k];
      const Element q = id >= 0 && id < sizes.experts ? probs[id] : NotANumber<Element>();
      chosen_sum += q;
      mean_of_gates += of_gate[k] * q;
    }
    chosen_sum = SumOfWarp(chosen_sum);
    mean_of_gates = SumOfWarp(mean_of_gates) / chosen_sum;
  }
  LaneValues<kSlots, Element> grad(grad_logits + row, sizes.experts);  // a until the end
  Element mean = 0;
  grad.ForEach([&](int n, Element& value) {
    Element a = grad_probs == nullptr ? 0 : grad_probs[row + n];
    if (of_gate != nullptr) {
      for (int k = 0; k < sizes.choices; ++k) {
        if (ids[k] == n) a += (of_gate[k] - mean_of_gates) / chosen_sum;
      }
    }
    mean += probs[n] * a;
    value = a;
  });
  const Element shift = (grad_log_sum == nullptr ? 0 : grad_log_sum[token]) - SumOfWarp(mean);
  grad.ForEach([&](int n, Element& value) { value = probs[n] * (value + shift); });
  grad.Store(grad_logits + row);
}

// Calls launch(slots, element) with the experts that a lane keeps in registers, 0 if they are too
// many, and a value of the elements' type.
template <typename Launch>
void WithSlots(const RouteTokensSizes& sizes, const Launch& launch) {
  const auto with_element = [&](auto element) {
    if (sizes.experts <= kWarp) return launch(std::integral_constant<int, 1>(), element);
    if (sizes.experts <= 2 * kWarp) return launch(std::integral_constant<int, 2>(), element);
    return launch(std::integral_constant<int, 0>(), element);
  };
  sizes.element == ElementType::kFloat64 ? with_element(double{}) : with_element(float{});
}

int BlocksOf(const RouteTokensSizes& sizes) {
  return static_cast<int>((sizes.tokens + kWarpsPerBlock - 1) / kWarpsPerBlock);
}

}  // namespace

void RouteTokens(const RouteTokensSizes& sizes, const RouteTokensArguments& in) {
  if (sizes.tokens == 0) return;
  WithSlots(sizes, [&](auto slots, auto element) {
    using Element = decltype(element);
    Forward<slots, Element><<<BlocksOf(sizes), kWarp * kWarpsPerBlock, 0, CurrentStream()>>>(
        Sizes(sizes), static_cast<const Element*>(in.logits), in.chosen,
        static_cast<Element*>(in.probs), static_cast<Element*>(in.gate),
        static_cast<Element*>(in.log_sum), in.ids);
  });
  CheckLaunch("RouteTokens");
}

void RouteTokensBackward(const RouteTokensSizes& sizes, const RouteTokensGradients& in) {
  if (sizes.tokens == 0) return;
  WithSlots(sizes, [&](auto slots, auto element) {
    using Element = decltype(element);
    Backward<slots, Element><<<BlocksOf(sizes), kWarp * kWarpsPerBlock, 0, CurrentStream()>>>(
        Sizes(sizes), static_cast<const Element*>(in.probs), in.ids,
        static_cast<const Element*>(in.grad_probs), static_cast<const Element*>(in.grad_gate),
        static_cast<const Element*>(in.grad_log_sum), static_cast<Element*>(in.grad_logits));
  });
  CheckLaunch("RouteTokensBackward");
}

}  // namespace hypermoe::cuda
