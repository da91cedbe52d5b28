#include "runtime/hyper_execution.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/config_values.h"
#include "model/hyper_network.h"
#include "model/selections.h"
#include "parallel/process_mesh.h"
#include "runtime/memory_plan.h"

namespace hypermoe {
namespace {

struct Candidate {
  HyperConfig::Execution execution;
  double operations;  // of forward, in multiply-adds; backward takes twice as many
  double bytes;       // kept for backward
};

// Costs per sparse layer are in units of 2 D A multiply-adds: a HyperExpert's two matrices cost
// hidden_dim of them to generate, its application to a token 1.
class Costs {
 public:
  Costs(const RunConfig& config, int world_size, int expert_degree)
      : config_(config),
        degree_(expert_degree),
        tokens_(static_cast<double>(config.train().batch_size()) *
                config.model().sequence_length() / world_size),
        hidden_(config.hyper().hidden_dim()),
        unit_(2.0 * config.model().hidden_size() * config.hyper().bottleneck_dim()),
        layers_(static_cast<double>(SparseLayers(config.model()).size())),
        element_(config.runtime().dtype() == RuntimeConfig::float64 ? 8 : 4),
        selections_(NumSelections(config.model().num_experts(), config.model().top_k())) {}

  std::vector<Candidate> All() const {
    std::vector<Candidate> candidates;
    if (SharedBySelection(config_.hyper()) && selections_.has_value()) {
      candidates.push_back(Source());
      // To the owner, tokens that an expert has no room for would travel for the HyperExpert
      // alone; and with several choices its ranks would generate the same selections.
      if (config_.model().top_k() == 1 &&
          config_.model().training_capacity().mode() == CapacityConfig::none) {
        candidates.push_back(Owner());
      }
    }
    if (!config_.hyper().baked()) candidates.push_back(Bilinear());
    return candidates;
  }

 private:
  Candidate Generated(HyperConfig::Execution execution, double generations, double kept,
                      double applications) const {
    // Kept twice: with gradients.
    return {execution, layers_ * unit_ * (generations * hidden_ + applications),
            2 * layers_ * kept * unit_ * element_};
  }
  // Once per step, or (HyperNetwork) those that occur in every micro-batch, at most one a token.
  Candidate Source() const {
    const auto all = static_cast<double>(*selections_);
    const double micro_batches = config_.train().micro_batches();
    const bool once = InCatalogue(*selections_, config_.model().top_k());
    const double occurring = std::min(all, tokens_ / micro_batches);
    return Generated(HyperConfig::source, once ? all : occurring * micro_batches,
                     once ? all : occurring, tokens_);
  }
  // Each rank generates for its own experts, and applies as unevenly as tokens fall on experts,
  // which is taken to be a quarter more on the busiest rank.
  Candidate Owner() const {
    const auto own =
        static_cast<double>(ExpertsOfRank(config_.model().num_experts(), degree_, 0).size());
    return Generated(HyperConfig::owner, own, own, 1.25 * tokens_);
  }
  // Contracting with k costs each token hidden_dim units more, and keeps two tensors of A q.
  Candidate Bilinear() const {
    const double micro_tokens = tokens_ / config_.train().micro_batches();
    return {HyperConfig::bilinear, layers_ * unit_ * tokens_ * hidden_,
            2 * layers_ * micro_tokens * hidden_ * config_.hyper().bottleneck_dim() * element_};
  }

  const RunConfig& config_;
  int degree_;
  double tokens_, hidden_, unit_, layers_, element_;
  std::optional<int64_t> selections_;
};

}  // namespace

bool SharedBySelection(const HyperConfig& hyper) {
  return hyper.condition() != HyperConfig::hidden && hyper.z() == HyperConfig::binary;
}

ExecutionChoice ChooseExecution(const RunConfig& config, int world_size, int expert_degree) {
  if (config.hyper().execution() != HyperConfig::auto_) return {config.hyper().execution(), ""};
  const std::vector<Candidate> candidates = Costs(config, world_size, expert_degree).All();
  const auto worse = [](const Candidate& a, const Candidate& b) {
    const double limit = kMaxGeneratedBytes;
    if ((a.bytes > limit) != (b.bytes > limit)) return a.bytes > limit;
    return a.bytes > limit ? a.bytes > b.bytes : a.operations > b.operations;
  };
  Candidate best = candidates[0];
  std::vector<std::string> texts;
  for (const Candidate& candidate : candidates) {
    if (worse(best, candidate)) best = candidate;
    texts.push_back(absl::StrFormat(
        "%s %.3g GFLOP and %s a step", HyperConfig::Execution_Name(candidate.execution),
        6e-9 * candidate.operations, FormatBytes(static_cast<int64_t>(candidate.bytes))));
  }
  return {best.execution, absl::StrCat("chosen by auto; on a rank: ", absl::StrJoin(texts, ", "))};
}

}  // namespace hypermoe
