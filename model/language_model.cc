#include "model/language_model.h"

#include "kernels/cross_entropy.h"

namespace hypermoe {

at::Tensor CrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_BS, double divisor) {
  return SumCrossEntropy(logits_TV, labels_BS.reshape({-1}), divisor, kIgnoredLabel);
}

}  // namespace hypermoe
