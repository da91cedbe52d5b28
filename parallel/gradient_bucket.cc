#include "parallel/gradient_bucket.h"

#include <algorithm>

namespace hypermoe {
namespace {

// The parameter in the bucket that was made first, so whose gradient comes last.
const Parameter* LastReady(const FlatBuffer& buffer, RowRange elements) {
  const Parameter* last = nullptr;
  for (size_t i = 0; i < buffer.parameters().size(); ++i) {
    const Parameter* parameter = buffer.parameters()[i];
    const int64_t begin = buffer.offset(i), end = begin + parameter->value.numel();
    const bool overlaps = begin < elements.end && end > elements.begin;
    if (overlaps && (last == nullptr || parameter < last)) last = parameter;
  }
  return last;
}

}  // namespace

std::vector<GradientBucket> MakeGradientBuckets(const std::vector<FlatBuffer>& buffers,
                                                const ProcessMesh& mesh, int64_t bucket_bytes) {
  struct Candidate {
    GradientBucket bucket;
    bool hyper;
    const Parameter* last_ready;  // parameters stand in one array, in the order they were made
  };
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < buffers.size(); ++i) {
    const FlatBuffer& buffer = buffers[i];
    const int64_t total = buffer.trained_elements();
    const int64_t step =
        std::max<int64_t>(1, bucket_bytes / static_cast<int64_t>(buffer.values().element_size()));
    Communicator* group =
        buffer.group() == ParameterGroup::kExpert ? mesh.expert_data.get() : mesh.world.get();
    for (int64_t begin = 0; begin < total; begin += step) {
      const RowRange elements = {begin, std::min(begin + step, total)};
      candidates.push_back({{i, elements, group},
                            buffer.group() == ParameterGroup::kHyper,
                            LastReady(buffer, elements)});
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.hyper != b.hyper ? b.hyper : a.last_ready > b.last_ready;
  });
  std::vector<GradientBucket> buckets;
  for (const Candidate& candidate : candidates) buckets.push_back(candidate.bucket);
  return buckets;
}

}  // namespace hypermoe
