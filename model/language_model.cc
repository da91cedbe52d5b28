#include "model/language_model.h"

#include "kernels/cross_entropy.h"
#include "model/sparse_blocks.h"

namespace hypermoe {

void KeyValueCache::SelectRows(const at::Tensor& rows_B) {
  for (std::vector<at::Tensor>* of_blocks : {&keys, &values, &encoder_keys, &encoder_values}) {
    for (at::Tensor& of_block : *of_blocks) of_block = of_block.index_select(0, rows_B);
  }
  if (attention_mask_BS.defined()) attention_mask_BS = attention_mask_BS.index_select(0, rows_B);
}

LanguageModel::LanguageModel(const ModelConfig& config, TensorChoice tensors)
    : config_(config), tensors_(tensors) {}

LanguageModel::~LanguageModel() = default;

void LanguageModel::FinishBackward() { sparse_->FinishBackward(); }

void LanguageModel::ParametersChanged() { sparse_->Invalidate(); }

const std::vector<int64_t>& LanguageModel::sparse_layers() const { return sparse_->layers(); }

const HyperNetwork* LanguageModel::hyper_network() const { return sparse_->hyper(); }

at::Tensor CrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_BS, double divisor) {
  return SumCrossEntropy(logits_TV, labels_BS.reshape({-1}), divisor, kIgnoredLabel);
}

}  // namespace hypermoe
