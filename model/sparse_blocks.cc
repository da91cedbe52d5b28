#include "model/sparse_blocks.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "model/config_values.h"

namespace hypermoe {

SparseBlocks::SparseBlocks(const ModelConfig& model, const HyperConfig& hyper,
                           std::shared_ptr<TokenDispatcher> dispatcher, ParameterFactory& factory)
    : model_(model), layers_(SparseLayers(model)) {
  TORCH_CHECK(layers_.empty() || dispatcher != nullptr, "a sparse model needs a token dispatcher");
  common_.dispatcher = std::move(dispatcher);
  common_.adapter_width = hyper.bottleneck_dim();
  if (model.kind() != ModelConfig::hyper) return;
  hyper_ = std::make_unique<HyperNetwork>(hyper, model, layers_, common_.dispatcher, factory);
  common_.hyper = hyper_.get();
}

std::optional<SparseParts> SparseBlocks::PartsOf(int64_t block) const {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), block);
  if (found == layers_.end() || *found != block) return std::nullopt;
  SparseParts parts = common_;
  parts.sparse_index = found - layers_.begin();
  parts.stack = StackOf(model_, block);
  return parts;
}

void SparseBlocks::Prepare() {
  if (hyper_ != nullptr) hyper_->Prepare();
}

void SparseBlocks::FinishBackward() {
  if (hyper_ != nullptr) hyper_->BackwardThroughGeneration();
}

void SparseBlocks::Invalidate() {
  if (hyper_ != nullptr) hyper_->Invalidate();
}

}  // namespace hypermoe
