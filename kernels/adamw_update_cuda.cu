#include <algorithm>

#include "kernels/adamw_update_arguments.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_stream.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;
// Of one piece to a block: a multiple of every pack.
constexpr int kElementsPerBlock = 16 * kThreads;
// To a launch, whose arguments have room for 4096 bytes.
constexpr int kPiecesPerLaunch = 48;

template <typename Scalar>
struct Piece {
  Scalar* value;
  const Scalar* gradient;
  Scalar *m, *v;
  __nv_bfloat16* copy;
  int64_t count;
  Scalar value_decay;
  int first_block;  // of those that work on it
  bool aligned;

  int64_t Blocks() const { return (count + kElementsPerBlock - 1) / kElementsPerBlock; }
};

template <typename Scalar>
struct Launch {
  AdamWScalars<Scalar> factors;
  double gradient_scale;
  const double* device_gradient_scale;
  const bool* skip;
  int num_pieces = 0;
  Piece<Scalar> pieces[kPiecesPerLaunch] = {};

  explicit Launch(const AdamWUpdateArguments& in)
      : factors(in),
        gradient_scale(in.gradient_scale),
        device_gradient_scale(in.device_gradient_scale),
        skip(in.skip) {}
};

// Elements begin .. end, by the block; begin is a multiple of kElementsPerBlock.
template <int kPack, typename Scalar>
__device__ void UpdateRange(const Piece<Scalar>& piece, int64_t begin, int64_t end,
                            const AdamWScalars<Scalar>& factors) {
  // Without __restrict__ the compiler cuts the stores of packs into single elements.
  Scalar *__restrict__ const x = piece.value, *__restrict__ const m = piece.m,
                             *__restrict__ const v = piece.v;
  const Scalar* __restrict__ const g = piece.gradient;
  __nv_bfloat16* __restrict__ const copy = piece.copy;
  for (int64_t i = begin + threadIdx.x * kPack; i < end; i += kThreads * kPack) {
    if (i + kPack > end) {
      for (int64_t j = i; j < end; ++j) {
        UpdateElement(x[j], g[j], m[j], v[j], factors);
        if (copy != nullptr) copy[j] = __float2bfloat16_rn(static_cast<float>(x[j]));
      }
      return;
    }
    using Scalars = Pack<Scalar, kPack>;
    const Scalars gradients = Scalars::Load(g + i);
    Scalars values = Scalars::Load(x + i), first = Scalars::Load(m + i),
            second = Scalars::Load(v + i);
    Pack<__nv_bfloat16, kPack> rounded;
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      UpdateElement(values[j], gradients[j], first[j], second[j], factors);
      rounded[j] = __float2bfloat16_rn(static_cast<float>(values[j]));
    }
    values.Store(x + i);
    first.Store(m + i);
    second.Store(v + i);
    if (copy != nullptr) rounded.Store(copy + i);
  }
}

template <typename Scalar>
__global__ void __launch_bounds__(kThreads) Update(const __grid_constant__ Launch<Scalar> in) {
  if (in.skip != nullptr && *in.skip) return;
  const int block = static_cast<int>(blockIdx.x);
  int p = 0;
  while (p + 1 < in.num_pieces && in.pieces[p + 1].first_block <= block) ++p;
  const Piece<Scalar>& piece = in.pieces[p];
  AdamWScalars<Scalar> factors = in.factors;
  factors.value_decay = piece.value_decay;
  if (in.device_gradient_scale != nullptr) {
    factors.gradient_scale = static_cast<Scalar>(in.gradient_scale * *in.device_gradient_scale);
  }
  const int64_t begin = int64_t{block - piece.first_block} * kElementsPerBlock;
  const int64_t end = min(piece.count, begin + kElementsPerBlock);
  if (piece.aligned) {
    UpdateRange<kPackOf<Scalar>>(piece, begin, end, factors);
  } else {
    UpdateRange<1>(piece, begin, end, factors);
  }
}

template <typename Scalar>
Piece<Scalar> PieceOf(const AdamWArrays& in, int first_block) {
  return {static_cast<Scalar*>(in.value),
          static_cast<const Scalar*>(in.gradient),
          static_cast<Scalar*>(in.m),
          static_cast<Scalar*>(in.v),
          static_cast<__nv_bfloat16*>(in.copy),
          in.count,
          static_cast<Scalar>(in.value_decay),
          first_block,
          IsAligned(in.value, in.gradient, in.m, in.v, in.copy)};
}

template <typename Scalar>
void UpdateAll(const AdamWUpdateArguments& in) {
  static_assert(sizeof(Launch<Scalar>) <= 4096);
  Launch<Scalar> launch(in);
  int64_t blocks = 0;
  const auto run = [&] {
    if (launch.num_pieces == 0) return;
    Update<<<static_cast<unsigned>(blocks), kThreads, 0, CurrentStream()>>>(launch);
    CheckLaunch("AdamWUpdate");
    launch.num_pieces = 0;
    blocks = 0;
  };
  for (int64_t i = 0; i < in.num_pieces; ++i) {
    if (in.pieces[i].count == 0) continue;
    const auto piece = PieceOf<Scalar>(in.pieces[i], static_cast<int>(blocks));
    launch.pieces[launch.num_pieces++] = piece;
    blocks += piece.Blocks();
    if (launch.num_pieces == kPiecesPerLaunch) run();
  }
  run();
}

}  // namespace

void AdamWUpdate(const AdamWUpdateArguments& in) {
  (in.element == ElementType::kFloat64 ? UpdateAll<double> : UpdateAll<float>)(in);
}

}  // namespace hypermoe::cuda
