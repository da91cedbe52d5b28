// config.json of Hugging Face's encoder-decoder models.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// As ReadFolderConfig, of model_type switch_transformers. `top`: the content of the file `path`.
// The library ignores router_type, router_dtype (what it names is less precise than ours, or the
// same), router_ignore_padding_tokens, add_router_probs, feed_forward_proj and is_gated_act; so are
// they here. decoder_start_token_id has no default.
absl::StatusOr<RunConfig> ReadSwitchConfig(const std::string& path, const nlohmann::json& top);

// Of model_type t5: a dense model of the family switch_transformers. Routing fields, which a dense
// model does not use, are as in the defaults of switch_transformers, for the day it gets experts.
absl::StatusOr<RunConfig> ReadT5Config(const std::string& path, const nlohmann::json& top);

}  // namespace hypermoe
