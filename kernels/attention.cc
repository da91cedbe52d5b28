#include "kernels/attention.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include "kernels/keyed_dropout.h"

namespace hypermoe {

at::Tensor FutureKeys(int64_t queries, int64_t keys, at::Device device) {
  return at::ones({queries, keys}, at::TensorOptions(at::kBool).device(device))
      .triu(keys - queries + 1);
}

at::Tensor AttentionOfScores(const at::Tensor& scores_BHSL, const at::Tensor& v_BHLC,
                             const AttentionDropout& dropout) {
  const at::ScalarType precise = v_BHLC.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor probs_BHSL = KeyedDropout(at::softmax(scores_BHSL, -1, precise),
                                             dropout.probability, dropout.key, dropout.row_ids_B);
  return at::matmul(probs_BHSL.to(v_BHLC.scalar_type()), v_BHLC);
}

}  // namespace hypermoe
