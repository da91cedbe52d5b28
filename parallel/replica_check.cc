#include "parallel/replica_check.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "kernels/array_digests.h"

namespace hypermoe {
namespace {

// Tensors that the ranks of one group hold in common, under names that are the same on all of them.
struct Copies {
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;

  void Add(const std::vector<NamedTensor>& views, const std::string& what) {
    for (const auto& [name, tensor] : views) {
      names.push_back(name + " (" + what + ")");
      // As it is kept: those that are named transposed.
      tensors.push_back(tensor.is_contiguous() ? tensor : tensor.transpose(-2, -1));
    }
  }
};

Copies CopiesOf(const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer, bool experts) {
  Copies copies;
  for (size_t b = 0; b < buffers.size(); ++b) {
    const FlatBuffer& buffer = buffers[b];
    if ((buffer.group() == ParameterGroup::kExpert) != experts) continue;
    for (const Parameter* parameter : buffer.parameters())
      copies.Add(GlobalViews(*parameter, parameter->value), "value");
    for (size_t kind = 0; kind < optimizer.kinds().size() && !optimizer.sharded(); ++kind) {
      std::string what = optimizer.kinds()[kind];
      std::replace(what.begin(), what.end(), '_', ' ');
      copies.Add(optimizer.StateViews(b, kind, optimizer.State(b, kind)), what);
    }
  }
  return copies;
}

std::string RanksText(const std::vector<int64_t>& ranks) {
  std::ostringstream text;
  text << (ranks.size() == 1 ? "rank " : "ranks ");
  for (size_t i = 0; i < ranks.size(); ++i) text << (i > 0 ? ", " : "") << ranks[i];
  return text.str();
}

// From the ranks that have each digest of one tensor, more than one: who is not like most.
std::string OutlierText(const std::map<int64_t, std::vector<int64_t>>& ranks_by_digest,
                        size_t group_size) {
  std::vector<int64_t> outliers;
  for (const auto& [digest, ranks] : ranks_by_digest) {
    if (2 * ranks.size() > group_size) continue;
    outliers.insert(outliers.end(), ranks.begin(), ranks.end());
  }
  std::sort(outliers.begin(), outliers.end());
  if (outliers.size() == group_size) {
    return "differs between " + RanksText(outliers) + ", of which no majority is alike";
  }
  std::ostringstream text;
  text << "on " << RanksText(outliers) << " differs from that of the "
       << group_size - outliers.size() << " other ranks";
  return text.str();
}

// table [ranks, 1 + tensors]: the rank's number in the world, then its digests.
std::string DifferenceText(const at::Tensor& table, const std::vector<std::string>& names) {
  const int64_t* row = table.const_data_ptr<int64_t>();
  const int64_t ranks = table.size(0), width = table.size(1);
  std::string first;
  int64_t different = 0;
  for (int64_t i = 1; i < width; ++i) {
    std::map<int64_t, std::vector<int64_t>> ranks_by_digest;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      ranks_by_digest[row[rank * width + i]].push_back(row[rank * width]);
    }
    if (ranks_by_digest.size() == 1) continue;
    if (different++ > 0) continue;
    first = names[i - 1] + " " + OutlierText(ranks_by_digest, static_cast<size_t>(ranks));
  }
  if (different == 0) return "";
  return first + " (" + std::to_string(different) +
         (different == 1 ? " tensor differs)" : " tensors differ)");
}

// Collective over `group`, the same on all of it.
std::string DriftIn(Communicator& group, int world_rank, const Copies& copies) {
  if (group.size() == 1) return "";
  const auto width = static_cast<int64_t>(copies.tensors.size()) + 1;
  const at::Tensor table =
      at::zeros({group.size(), width}, at::TensorOptions(at::kLong).device(group.device()));
  const at::Tensor own = table.select(0, group.rank());
  own.select(0, 0).fill_(world_rank);
  own.narrow(0, 1, width - 1).copy_(ArrayDigests(copies.tensors, group.device()));
  group.AllGatherParts(table.view({-1}));
  return DifferenceText(table.cpu(), copies.names);
}

}  // namespace

std::string FindDrift(const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer,
                      const ProcessMesh& mesh) {
  const at::NoGradGuard no_grad;
  const int rank = mesh.world->rank();
  std::string drift = DriftIn(*mesh.world, rank, CopiesOf(buffers, optimizer, /*experts=*/false));
  const std::string of_experts =
      DriftIn(*mesh.expert_data, rank, CopiesOf(buffers, optimizer, /*experts=*/true));
  // Each group of experts knows its own; ranks of one group say the same.
  std::vector<std::string> texts = mesh.world->AllGatherText(of_experts);
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  for (const std::string& text : texts) {
    if (!text.empty()) drift += (drift.empty() ? "" : "; ") + text;
  }
  return drift;
}

}  // namespace hypermoe
