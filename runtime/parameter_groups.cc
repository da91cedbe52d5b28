#include "runtime/parameter_groups.h"

#include <c10/util/accumulate.h>

#include <iterator>

#include "absl/strings/match.h"

namespace hypermoe {
namespace {

// A group, and a part of the names of its tensors. The first that fits counts.
struct Rule {
  const char* group;
  const char* part;
};

constexpr Rule kRules[] = {
    {"expert embeddings", "hypermoe.expert_embedding."},
    {"weight encoder", "hypermoe.weight_encoder."},
    {"selection MLP", "hypermoe.selection_mlp."},
    {"layer embeddings", "hypermoe.layer_embedding."},
    {"HyperExpert scales", "hypermoe.scale."},
    {"baked HyperExperts", "hypermoe.baked."},
    {"generator", "hypermoe."},
    {"experts", ".experts.expert_"},
    {"shared experts", ".shared_expert."},
    {"adapters", ".adapter."},
    {"routers", ".router."},
    {"norms", ".ln_"},
    {"norms", "ln_f."},
    {"norms", "layer_norm."},
    {"attention", ".attn."},
    {"attention", "Attention."},
    {"dense feed-forward", ".mlp."},
    {"embeddings and head", ""},
};

}  // namespace

std::vector<ParameterGroupSize> GroupTensors(const std::map<std::string, TensorEntry>& entries) {
  std::vector<ParameterGroupSize> groups;
  std::map<std::string, size_t> places;
  // The rest of the model first, the hypernetwork last.
  for (auto rule = std::rbegin(kRules); rule != std::rend(kRules); ++rule) {
    if (places.emplace(rule->group, groups.size()).second) groups.push_back({rule->group, 0, 0});
  }
  for (const auto& [name, entry] : entries) {
    for (const Rule& rule : kRules) {
      if (!absl::StrContains(name, rule.part)) continue;
      ParameterGroupSize& group = groups[places.at(rule.group)];
      ++group.tensors;
      group.parameters += c10::multiply_integers(entry.shape);
      break;
    }
  }
  std::erase_if(groups, [](const ParameterGroupSize& group) { return group.tensors == 0; });
  return groups;
}

}  // namespace hypermoe
