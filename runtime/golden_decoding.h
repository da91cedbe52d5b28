// What a model writes where a golden file says what another implementation wrote.
//
// Legend: B rows, M ids.
#pragma once

#include <ATen/core/Tensor.h>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/communicator.h"
#include "runtime/golden_file.h"

namespace hypermoe {

// [B,M] as the file holds them: the ids after the prompts, or with an encoder start token, ids and,
// after the end id, pads; -1 everywhere if the model's logits are no numbers. `rows`: of this rank,
// maybe none. Collective over `world`, that of the model.
at::Tensor DecodeAsGolden(LanguageModel& model, const ModelConfig& config,
                          const GoldenDecoding& decoding, const Batch& rows, Communicator& world);

}  // namespace hypermoe
