#include "runtime/generator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/keyed_random.h"
#include "model/config_values.h"
#include "runtime/agreement.h"
#include "runtime/loaded_model.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

// The sequence as rank 0 sees it; the others take part in every forward pass with no rows.
class Decoder {
 public:
  Decoder(LanguageModel& model, int64_t sequence_length, Communicator& world)
      : model_(model), sequence_length_(sequence_length), world_(world) {}

  // Logits [V] that follow `ids`, of which all but the last have been passed before (rank 0;
  // undefined elsewhere).
  at::Tensor Next(const std::vector<int64_t>& ids) {
    const auto length = static_cast<int64_t>(ids.size());
    int64_t fresh = length - consumed_;
    if (cache_.length + fresh > sequence_length_) {
      // The positions are used up: start again from the last half of them, so that this happens
      // once per half.
      cache_ = KeyValueCache();
      fresh = std::min(length, std::max<int64_t>(1, sequence_length_ / 2));
    }
    consumed_ = length;
    const int64_t rows = world_.rank() == 0 ? 1 : 0;
    Batch batch;
    batch.input_ids_BS = at::empty({rows, fresh}, at::kLong);
    batch.row_ids_B = at::zeros({rows}, at::kLong);
    if (rows == 1)
      std::copy(ids.end() - fresh, ids.end(), batch.input_ids_BS.mutable_data_ptr<int64_t>());
    ForwardMode mode;
    mode.cache = &cache_;
    const ModelOutput output = model_.Forward(batch.To(model_.device()), mode);
    return rows == 1 ? output.logits_TV[fresh - 1].cpu() : at::Tensor();
  }

 private:
  LanguageModel& model_;
  int64_t sequence_length_;
  Communicator& world_;
  KeyValueCache cache_;
  int64_t consumed_ = 0;  // of ids
};

// Draws an id by `uniform` in [0, 1) from the smallest set of likeliest ids whose probability
// reaches top_p.
int64_t Sample(const at::Tensor& logits_V, const GenerateOptions& options, double uniform) {
  const at::Tensor logits = logits_V.to(at::kDouble).contiguous();
  if (options.temperature == 0) return logits.argmax().item<int64_t>();
  const at::Tensor probs_V = at::softmax(logits.div(options.temperature), 0);
  const double* probs = probs_V.const_data_ptr<double>();
  std::vector<int64_t> order(static_cast<size_t>(probs_V.numel()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return probs[a] > probs[b]; });
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options.top_p))
    kept += probs[order[count++]];
  double threshold = uniform * kept;
  for (size_t i = 0; i < count; ++i) {
    threshold -= probs[order[i]];
    if (threshold < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace

absl::StatusOr<std::string> Generate(const GenerateOptions& options,
                                     std::shared_ptr<Communicator> world, int expert_parallel) {
  ASSIGN_OR_RETURN(const LoadedModel loaded,
                   LoadModel(options.checkpoint, options.dtype, world, expert_parallel));
  const RunConfig& config = loaded.info.config;
  if (HasEncoder(config.model())) {
    return UsageError(options.checkpoint +
                      " is an encoder-decoder model, which does not go on from a prompt: give "
                      "--input FILE and --output FILE in place of --prompt and its options");
  }
  // Each rank reads the tokenizer's files: one that cannot must not leave the others decoding.
  absl::StatusOr<std::unique_ptr<Tokenizer>> opened = TokenizerOf(config);
  RETURN_IF_ERROR(Agree(*world, opened.status()));
  const std::unique_ptr<Tokenizer> tokenizer = *std::move(opened);
  std::vector<int32_t> prompt;
  tokenizer->Encode(options.prompt, &prompt);
  std::vector<int64_t> ids(prompt.begin(), prompt.end());
  // Every document follows an end of text, so this is where an empty prompt begins.
  if (ids.empty()) ids.push_back(tokenizer->end_of_text());

  const at::NoGradGuard no_grad;
  Decoder decoder(*loaded.model, config.model().sequence_length(), *world);
  const RandomKey key = RandomKey{options.seed, 0}.Derive("sampling");
  std::vector<int64_t> added;
  while (static_cast<int64_t>(added.size()) < options.max_tokens) {
    const at::Tensor logits_V = decoder.Next(ids);
    int64_t id = 0;
    if (logits_V.defined()) id = Sample(logits_V, options, UniformAt(key, added.size()));
    world->Broadcast(at::from_blob(&id, {1}, at::kLong), 0);
    if (id == tokenizer->end_of_text()) break;
    ids.push_back(id);
    added.push_back(id);
  }
  return tokenizer->Decode(added);
}

}  // namespace hypermoe
