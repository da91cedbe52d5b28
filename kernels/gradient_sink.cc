#include "kernels/gradient_sink.h"

namespace hypermoe {

bool HasGradientSink(const at::Tensor& weight) {
  return weight.is_leaf() && weight.requires_grad() && weight.grad().defined();
}

}  // namespace hypermoe
