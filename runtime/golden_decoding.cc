#include "runtime/golden_decoding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "model/config_values.h"
#include "runtime/beam_search.h"
#include "runtime/model_logits.h"

namespace hypermoe {
namespace {

BeamSearchOptions SearchOf(const GoldenDecoding& decoding, const ModelConfig& config) {
  BeamSearchOptions search;
  if (!HasEncoder(config)) {
    search.max_length = decoding.prompt_length + decoding.new_tokens;
    search.end_id = decoding.end_id;
    return search;
  }
  search.beams = decoding.beams;
  search.length_penalty = decoding.length_penalty;
  search.no_repeat_ngram = decoding.no_repeat_ngram;
  search.min_length = decoding.min_length;
  search.max_length = decoding.max_length;
  search.early_stopping = decoding.early_stopping;
  search.end_id = decoding.end_id;
  return search;
}

// Of the rows of all ranks, the ids of the longest; collective.
int64_t LongestOf(const std::vector<DecodedRow>& rows, Communicator& world) {
  int64_t longest = 0;
  for (const DecodedRow& row : rows)
    longest = std::max(longest, static_cast<int64_t>(row.ids.size()));
  world.AllReduceMax(at::from_blob(&longest, {1}, at::kLong));
  return longest;
}

}  // namespace

at::Tensor DecodeAsGolden(LanguageModel& model, const ModelConfig& config,
                          const GoldenDecoding& decoding, const Batch& rows, Communicator& world) {
  const at::NoGradGuard no_grad;
  const bool encoder = HasEncoder(config);
  const int64_t count = rows.row_ids_B.size(0);
  const BeamSearchOptions search = SearchOf(decoding, config);
  const at::Tensor prompts = encoder ? at::full({count, 1}, decoding.start_id, at::kLong)
                                     : rows.input_ids_BS.narrow(1, 0, decoding.prompt_length).cpu();
  ModelLogits logits(model, rows, encoder, decoding.cached);
  const auto decoded = BeamSearch(search, prompts, std::ref(logits), world);
  const int64_t left_out = encoder ? 0 : decoding.prompt_length;
  if (!decoded.ok()) return at::full({count, decoding.width}, -1, at::kLong);
  const int64_t length =
      encoder ? std::max(decoding.width, LongestOf(*decoded, world)) : search.max_length - left_out;
  at::Tensor ids_BM = at::full({count, length}, decoding.pad_id, at::kLong);
  int64_t* out = ids_BM.mutable_data_ptr<int64_t>();
  for (const DecodedRow& row : *decoded) {
    std::copy(row.ids.begin() + left_out, row.ids.end(), out);
    out += length;
  }
  return ids_BM;
}

}  // namespace hypermoe
