// The four moves of rows that a DispatchPlan describes, differentiable. Each is a permutation of
// the expert group's rows, so the gradient of one is the opposite one of the same plan, and no
// gradient needs an index_add.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "parallel/communicator.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

enum class RowMove { kPermute, kUnpermute, kDispatch, kCombine };

// What TokenDispatcher's function of the same name promises. `expert` is the group that `plan` was
// made in.
at::Tensor MoveRows(RowMove move, const at::Tensor& rows,
                    const std::shared_ptr<const DispatchPlan>& plan,
                    const std::shared_ptr<Communicator>& expert, const at::Tensor& known = {});

}  // namespace hypermoe
