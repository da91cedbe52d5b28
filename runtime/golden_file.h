// A golden file: what another, independent implementation computed for a model folder in evaluation
// mode (README, "Model folders"). Its header says in which dtype, and how tokens were decoded.
//
// Legend: B rows, S positions, T positions of labels (S without an encoder), M decoded tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/beam_search.h"
#include "runtime/status.h"

namespace hypermoe {

// Decoding of every row. Without an encoder, greedy from a prompt, the first ids of the row; with
// one, of a target for the row.
struct GoldenDecoding {
  std::string entry;   // "tokens.greedy"
  bool cached = true;  // keys and values of earlier positions are kept
  // Without an encoder.
  int64_t prompt_length = 0;
  int64_t new_tokens = 0;  // M
  // With one; lengths count the start token.
  int64_t beams = 1;  // 1: greedy
  double length_penalty = 1;
  int64_t no_repeat_ngram = 0;
  int64_t min_length = 0, max_length = 0;
  EarlyStopping early_stopping = EarlyStopping::kNo;
  // The model's, unless the settings name others; without an encoder no end (-1).
  int64_t start_id = 0, end_id = -1, pad_id = 0;
  int64_t width = 0;  // M; where every row ends before max_length, that of the longest
};

struct GoldenFile {
  std::string path;
  at::Tensor input_ids_BS;       // int64, below the vocabulary size
  at::Tensor attention_mask_BS;  // bool; undefined without an encoder
  // int64: position s predicts label s + 1, of a decoder with an encoder label s; kIgnoredLabel
  // counts nowhere.
  at::Tensor labels_BT;
  std::vector<GoldenDecoding> decodings;
  // Everything but the inputs, by name; "transformer." is left out of the names of gradients.
  // Tensors share the file's mapping.
  std::map<std::string, at::Tensor> entries;
};

// Reads the file and checks what a pass over the model rests on: inputs of right dtype, shape and
// range, decodings that this program knows and that fit into the model's positions, floating-point
// entries in the dtype that the header names. What the model does not have is found by the
// comparison. Entries "tokens.*" of a model without an encoder, other than greedy and
// greedy_nocache, get no decoding. Local. DataError, or IoError.
absl::StatusOr<GoldenFile> OpenGoldenFile(const std::string& path, const ModelConfig& model);

}  // namespace hypermoe
