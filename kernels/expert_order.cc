#include "kernels/expert_order.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <limits>

#include "kernels/expert_order_arguments.h"

namespace hypermoe {
namespace {

// As many as a model may have, and one. On a GPU their counts stand in shared memory.
constexpr int64_t kMostExperts = 4097;
// On a GPU positions are 32 bits wide.
constexpr int64_t kMostChoices = std::numeric_limits<int32_t>::max() - kExpertOrderTile;

}  // namespace

ExpertOrder OrderByExpert(const at::Tensor& expert_ids_C, int64_t num_experts) {
  TORCH_CHECK(expert_ids_C.dim() == 1 && expert_ids_C.scalar_type() == at::kLong,
              "expert ids have shape ", expert_ids_C.sizes(), " and dtype ",
              expert_ids_C.scalar_type(), ", expected one axis of int64");
  TORCH_CHECK(num_experts >= 1 && num_experts <= kMostExperts, "OrderByExpert: ", num_experts,
              " experts, expected 1 to ", kMostExperts);
  const int64_t choices = expert_ids_C.numel();
  TORCH_CHECK(choices <= kMostChoices, "OrderByExpert: ", choices, " choices, expected at most ",
              kMostChoices);
  const at::Tensor dense_C = expert_ids_C.contiguous();
  const ExpertOrder result = {at::empty_like(dense_C), at::empty_like(dense_C),
                              at::empty({num_experts + 2}, dense_C.options())};
  at::Tensor scratch;
  if (dense_C.is_cuda()) {
    const int64_t tiles = (choices + kExpertOrderTile - 1) / kExpertOrderTile;
    scratch = at::empty({num_experts + 2, tiles}, dense_C.options().dtype(at::kInt));
  }
  (dense_C.is_cuda() ? cuda::OrderByExpert : cpu::OrderByExpert)(
      {dense_C.const_data_ptr<int64_t>(), choices, num_experts,
       result.order_C.mutable_data_ptr<int64_t>(), result.inverse_C.mutable_data_ptr<int64_t>(),
       result.counts.mutable_data_ptr<int64_t>(),
       scratch.defined() ? scratch.mutable_data_ptr<int32_t>() : nullptr});
  return result;
}

}  // namespace hypermoe
