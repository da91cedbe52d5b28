// What the sparse blocks of a model have in common: the dispatcher of their tokens and, in kind
// hyper, the hypernetwork.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "configs/run.pb.h"
#include "model/hyper_network.h"
#include "model/moe_layer.h"
#include "model/parameter_factory.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

class SparseBlocks {
 public:
  // Makes the hypernetwork's parameters. dispatcher: null for kind dense. Must outlive the blocks.
  SparseBlocks(const ModelConfig& model, const HyperConfig& hyper,
               std::shared_ptr<TokenDispatcher> dispatcher, ParameterFactory& factory);

  // Their numbers, ascending (SparseLayers).
  const std::vector<int64_t>& layers() const { return layers_; }
  // Nothing for a dense block.
  std::optional<SparseParts> PartsOf(int64_t block) const;
  // Null unless kind is hyper.
  const HyperNetwork* hyper() const { return hyper_.get(); }

  // Before a pass; after the last backward of a step; when parameters have changed
  // (hyper_network.h).
  void Prepare();
  void FinishBackward();
  void Invalidate();

 private:
  ModelConfig model_;
  std::vector<int64_t> layers_;
  SparseParts common_;
  std::unique_ptr<HyperNetwork> hyper_;
};

}  // namespace hypermoe
