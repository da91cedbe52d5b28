// Small models under condition weights.
#pragma once

#include "configs/run.pb.h"

namespace hypermoe {

// Gives a tiny configuration (tiny_training.h) the smallest sizes with which experts can be
// encoded, and one sparse block, the first: 2.8 million parameters an expert.
inline void EncodeWeights(RunConfig* config) {
  ModelConfig& model = *config->mutable_model();
  model.set_hidden_size(720);
  model.set_ffn_size(1920);
  model.set_num_layers(1);
  if (model.family() == ModelConfig::gpt2) {
    model.clear_sparse_layers();
  } else {
    model.set_num_decoder_layers(1);
    model.set_encoder_sparse_step(1);
    model.set_decoder_sparse_step(0);
  }
  config->mutable_hyper()->set_condition(HyperConfig::weights);
  config->mutable_hyper()->set_expert_embedding_dim(128);
}

}  // namespace hypermoe
