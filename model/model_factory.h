// Makes the model that a configuration names.
#pragma once

#include <cstdint>
#include <memory>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

// Of model.family, with its initial values, which are keyed by `seed`. The dispatcher (over
// model.num_experts experts) decides which experts are held here; null for kind dense. Nothing is
// communicated.
std::unique_ptr<LanguageModel> MakeLanguageModel(const ModelConfig& model, const HyperConfig& hyper,
                                                 uint64_t seed, TensorChoice tensors,
                                                 std::shared_ptr<TokenDispatcher> dispatcher);

}  // namespace hypermoe
