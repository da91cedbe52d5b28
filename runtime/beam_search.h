// Greedy decoding and beam search over whatever gives logits, as transformers 4.57 does them.
//
// Legend: B rows of this rank, P positions of a prompt, N running beams of all rows, L positions of
// a running beam, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {

// When a row stops that has as many finished sequences as beams; before, it goes on anyway.
enum class EarlyStopping {
  kNo,     // once its best running sequence, as long as it is, scores no better than the worst of
           // them; with one beam at once
  kYes,    // at once
  kNever,  // as kNo, but with length_penalty above 0 that sequence is scored as if it had
           // max_length
};

// Lengths count the prompt and the end id.
struct BeamSearchOptions {
  int64_t beams = 1;  // 1 is greedy
  // The score of a finished sequence is the sum of its log probabilities / n^length_penalty, n the
  // ids after the prompt.
  double length_penalty = 1;
  int64_t no_repeat_ngram = 0;  // so many ids in a row do not occur twice; 0: no such rule
  int64_t min_length = 0;       // no end while a sequence is shorter
  int64_t max_length = 20;      // above P, at least min_length
  EarlyStopping early_stopping = EarlyStopping::kNo;
  int64_t end_id = -1;    // -1: none, every sequence gets max_length
  int64_t known_ids = 0;  // ids from here on are never chosen; 0: all of V are known
};

struct DecodedRow {
  std::vector<int64_t> ids;  // with the prompt, and with the end id unless max_length came first
  double score = 0;
};

// Given what each running beam has so far, [N,L], logits [N,V] of what follows it, of any dtype and
// device. L is P in the first call, which has one beam a row, and one more in each of the next.
// parents_N: where among the beams of the previous call (first call: among the rows) each one comes
// from. Beams of a row stand together, rows in order; rows that have stopped have none.
using NextLogits = std::function<at::Tensor(const at::Tensor& ids_NL, const at::Tensor& parents_N)>;

// The best sequence of every row. prompts_BP: int64, on the CPU. Collective over `world`, one small
// all-reduce a step: every rank calls `next` until all rows of all ranks have stopped, with no
// beams too, so that `next` may be collective itself.
//
// Probabilities are those of log softmax in float64; what is forbidden then gets none, the others
// are not scaled up. Of equal continuations that of the better beam, then the lower id is first. A
// row none of whose beams may be continued ends with the best of them. Logits that are not numbers
// are InternalError, the same on every rank.
absl::StatusOr<std::vector<DecodedRow>> BeamSearch(const BeamSearchOptions& options,
                                                   const at::Tensor& prompts_BP,
                                                   const NextLogits& next, Communicator& world);

}  // namespace hypermoe
