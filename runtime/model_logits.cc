#include "runtime/model_logits.h"

#include <ATen/ops/arange.h>

namespace hypermoe {

ModelLogits::ModelLogits(LanguageModel& model, const Batch& rows, bool encoder, bool cached)
    : model_(model), rows_(rows.To(model.device())), encoder_(encoder), cached_(cached) {
  rows_.labels_BS = at::Tensor();
}

// Mostly all go on where they are: a copy of the cache is saved then.
void ModelLogits::SelectRows(const at::Tensor& parents_N) {
  const int64_t before = rows_.row_ids_B.size(0);
  if (parents_N.equal(at::arange(before, at::kLong))) return;
  const at::Tensor rows = parents_N.to(model_.device());
  for (at::Tensor* of_rows : {&rows_.input_ids_BS, &rows_.attention_mask_BS, &rows_.row_ids_B}) {
    if (of_rows->defined()) *of_rows = of_rows->index_select(0, rows);
  }
  if (!cache_.empty()) cache_.SelectRows(rows);
}

at::Tensor ModelLogits::operator()(const at::Tensor& ids_NL, const at::Tensor& parents_N) {
  if (!cached_) cache_ = KeyValueCache();
  SelectRows(parents_N);
  const int64_t fresh = ids_NL.size(1) - cache_.length;
  Batch batch = rows_;
  (encoder_ ? batch.decoder_ids_BT : batch.input_ids_BS) =
      ids_NL.narrow(1, cache_.length, fresh).contiguous().to(model_.device());
  ForwardMode mode;
  // Without an encoder a pass with a cache is how a model is asked for no capacity.
  mode.cache = cached_ || !encoder_ ? &cache_ : nullptr;
  const at::Tensor logits_TV = model_.Forward(batch, mode).logits_TV;
  return logits_TV.view({ids_NL.size(0), fresh, logits_TV.size(1)}).select(1, fresh - 1);
}

}  // namespace hypermoe
