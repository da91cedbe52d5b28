#include "model/model_factory.h"

#include <utility>

#include "model/gpt2.h"
#include "model/switch_transformer.h"

namespace hypermoe {

std::unique_ptr<LanguageModel> MakeLanguageModel(const ModelConfig& model, const HyperConfig& hyper,
                                                 uint64_t seed, TensorChoice tensors,
                                                 std::shared_ptr<TokenDispatcher> dispatcher) {
  if (model.family() == ModelConfig::switch_transformers) {
    return std::make_unique<SwitchTransformer>(model, hyper, seed, tensors, std::move(dispatcher));
  }
  return std::make_unique<Gpt2>(model, hyper, seed, tensors, std::move(dispatcher));
}

}  // namespace hypermoe
