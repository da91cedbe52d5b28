// The moves of rows that a DispatchPlan describes, differentiable. Each is a permutation of the
// expert group's rows, so the gradient of one is the opposite one of the same plan, and no gradient
// needs an index_add.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "parallel/communicator.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

// What TokenDispatcher's functions promise. The plan need not be finished.
at::Tensor PermuteRows(const at::Tensor& rows, const std::shared_ptr<const DispatchPlan>& plan);
at::Tensor UnpermuteRows(const at::Tensor& rows, const std::shared_ptr<const DispatchPlan>& plan);

// Dispatch, or Combine, in two steps. In backward the gradients travel between that of FinishRows
// and that of StartRows. `expert` is the group that `plan` was made in.
RowsUnderWay StartRows(bool dispatch, const at::Tensor& rows,
                       const std::shared_ptr<const DispatchPlan>& plan,
                       const std::shared_ptr<Communicator>& expert, const at::Tensor& known);
at::Tensor FinishRows(RowsUnderWay under_way);

}  // namespace hypermoe
