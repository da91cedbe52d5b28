#include "runtime/beam_search.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/agreement.h"

namespace hypermoe {
namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

struct Beam {
  std::vector<int64_t> ids;
  double sum = 0;  // of log probabilities after the prompt
};

struct Continuation {
  size_t beam;
  int64_t id;
  double sum;
};

// Ids that would complete for the second time what `size` ids in a row have been.
void ForbidRepeats(const std::vector<int64_t>& ids, int64_t size, double* log_probs_V) {
  if (size == 0 || static_cast<int64_t>(ids.size()) < size - 1) return;
  const auto tail = ids.end() - (size - 1);
  for (auto begin = ids.begin(); ids.end() - begin >= size; ++begin) {
    if (std::equal(tail, ids.end(), begin)) log_probs_V[begin[size - 1]] = kImpossible;
  }
}

// Adds in front of what is worse, and keeps the best `most`; of equals the first added is first.
template <typename T, typename Value>
void AddRanked(const T& added, Value T::*value, size_t most, std::vector<T>* ranked) {
  const auto at = std::upper_bound(
      ranked->begin(), ranked->end(), added,
      [value](const T& left, const T& right) { return left.*value > right.*value; });
  ranked->insert(at, added);
  if (ranked->size() > most) ranked->pop_back();
}

class RowSearch {
 public:
  RowSearch(const BeamSearchOptions& options, std::vector<int64_t> prompt)
      : options_(options),
        beams_(static_cast<size_t>(options.beams)),
        prompt_(static_cast<int64_t>(prompt.size())),
        running_{{std::move(prompt), 0}} {}

  const std::vector<Beam>& running() const { return running_; }
  const DecodedRow& best() const { return finished_.front(); }
  void Stop() { running_.clear(); }

  // log_probs: [running, V], overwritten. Returns where among the beams that were running the ones
  // that are now come from.
  std::vector<size_t> Advance(double* log_probs, int64_t vocab);

 private:
  std::vector<Continuation> BestContinuations(double* log_probs, int64_t vocab) const;
  double Score(double sum, int64_t length) const {
    return sum / std::pow(std::max<int64_t>(1, length - prompt_), options_.length_penalty);
  }
  void Finish(Beam beam) {
    const double score = Score(beam.sum, static_cast<int64_t>(beam.ids.size()));
    AddRanked({std::move(beam.ids), score}, &DecodedRow::score, beams_, &finished_);
  }
  bool CanImprove() const;

  const BeamSearchOptions& options_;
  size_t beams_;
  int64_t prompt_;
  std::vector<Beam> running_;         // the best first
  std::vector<DecodedRow> finished_;  // the best first
};

// Twice as many as beams: each beam can end once at most, so that enough of them go on.
std::vector<Continuation> RowSearch::BestContinuations(double* log_probs, int64_t vocab) const {
  const int64_t known = options_.known_ids > 0 ? std::min(options_.known_ids, vocab) : vocab;
  const size_t most = 2 * beams_;
  std::vector<Continuation> best;
  best.reserve(most + 1);
  double threshold = kImpossible;
  for (size_t beam = 0; beam < running_.size(); ++beam) {
    double* const log_probs_V = log_probs + static_cast<int64_t>(beam) * vocab;
    const auto& [ids, sum] = running_[beam];
    if (options_.end_id >= 0 && static_cast<int64_t>(ids.size()) < options_.min_length)
      log_probs_V[options_.end_id] = kImpossible;
    ForbidRepeats(ids, options_.no_repeat_ngram, log_probs_V);
    for (int64_t id = 0; id < known; ++id) {
      const double total = sum + log_probs_V[id];
      if (!(total > threshold)) continue;
      AddRanked({beam, id, total}, &Continuation::sum, most, &best);
      if (best.size() == most) threshold = best.back().sum;
    }
  }
  return best;
}

// Only ends among the first `beams` continuations count: a worse one must not take the place of a
// sequence that is still to come.
std::vector<size_t> RowSearch::Advance(double* log_probs, int64_t vocab) {
  const std::vector<Continuation> best = BestContinuations(log_probs, vocab);
  std::vector<Beam> next;
  std::vector<size_t> parents;
  for (size_t i = 0; i < best.size(); ++i) {
    Beam beam{running_[best[i].beam].ids, best[i].sum};
    beam.ids.push_back(best[i].id);
    if (best[i].id == options_.end_id ||
        static_cast<int64_t>(beam.ids.size()) == options_.max_length) {
      if (i < beams_) Finish(std::move(beam));
    } else if (next.size() < beams_) {
      next.push_back(std::move(beam));
      parents.push_back(best[i].beam);
    }
  }
  if (next.empty() && finished_.empty()) Finish(std::move(running_.front()));
  running_ = std::move(next);
  if (!running_.empty() && CanImprove()) return parents;
  Stop();
  return {};
}

bool RowSearch::CanImprove() const {
  if (finished_.size() < beams_) return true;
  if (beams_ == 1 || options_.early_stopping == EarlyStopping::kYes) return false;
  const bool longest =
      options_.early_stopping == EarlyStopping::kNever && options_.length_penalty > 0;
  const auto length = static_cast<int64_t>(running_.front().ids.size());
  return Score(running_.front().sum, longest ? options_.max_length : length) >
         finished_.back().score;
}

// The rows of this rank.
class Search {
 public:
  Search(const BeamSearchOptions& options, const at::Tensor& prompts_BP)
      : length_(prompts_BP.size(1)) {
    const int64_t* ids = prompts_BP.const_data_ptr<int64_t>();
    for (int64_t row = 0; row < prompts_BP.size(0); ++row, ids += length_) {
      rows_.emplace_back(options, std::vector<int64_t>(ids, ids + length_));
      parents_.push_back(row);
    }
  }

  bool running() const { return !parents_.empty(); }
  const std::vector<RowSearch>& rows() const { return rows_; }

  at::Tensor IdsNL() const {
    at::Tensor ids_NL = at::empty({static_cast<int64_t>(parents_.size()), length_}, at::kLong);
    int64_t* out = ids_NL.mutable_data_ptr<int64_t>();
    for (const RowSearch& row : rows_) {
      for (const Beam& beam : row.running()) out = std::copy(beam.ids.begin(), beam.ids.end(), out);
    }
    return ids_NL;
  }
  at::Tensor ParentsN() const {
    at::Tensor parents_N = at::empty({static_cast<int64_t>(parents_.size())}, at::kLong);
    std::copy(parents_.begin(), parents_.end(), parents_N.mutable_data_ptr<int64_t>());
    return parents_N;
  }

  // On an error all rows of this rank stop.
  absl::Status Advance(const at::Tensor& logits_NV);

 private:
  int64_t length_;  // of every running beam, here or on another rank
  std::vector<RowSearch> rows_;
  std::vector<int64_t> parents_;
};

absl::Status Search::Advance(const at::Tensor& logits_NV) {
  const at::Tensor log_probs_NV = at::log_softmax(logits_NV.cpu().to(at::kDouble).contiguous(), 1);
  const int64_t vocab = log_probs_NV.size(1);
  double* log_probs = log_probs_NV.mutable_data_ptr<double>();
  int64_t first = 0;  // beam of the row
  parents_.clear();
  ++length_;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const auto beams = static_cast<int64_t>(rows_[row].running().size());
    for (int64_t beam = 0; beam < beams; ++beam) {
      // One logit that is NaN or +infinity makes all of them NaN.
      if (!std::isnan(log_probs[beam * vocab])) continue;
      for (RowSearch& stopped : rows_) stopped.Stop();
      parents_.clear();
      return InternalError(absl::StrCat(
          "decoding: after ", length_ - 1, " ids of row ", row,
          " the model's logits are not numbers: look for values that are not finite in its "
          "parameters, or give --set runtime.dtype=float32 if it computes in bfloat16"));
    }
    if (beams == 0) continue;
    for (const size_t parent : rows_[row].Advance(log_probs, vocab))
      parents_.push_back(first + static_cast<int64_t>(parent));
    log_probs += beams * vocab;
    first += beams;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<DecodedRow>> BeamSearch(const BeamSearchOptions& options,
                                                   const at::Tensor& prompts_BP,
                                                   const NextLogits& next, Communicator& world) {
  Search search(options, prompts_BP.contiguous());
  absl::Status status;
  while (AnyRank(world, search.running()))
    status.Update(search.Advance(next(search.IdsNL(), search.ParentsN())));
  RETURN_IF_ERROR(Agree(world, status));
  std::vector<DecodedRow> decoded;
  for (const RowSearch& row : search.rows()) decoded.push_back(row.best());
  return decoded;
}

}  // namespace hypermoe
