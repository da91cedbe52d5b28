#include "parallel/bad_gradients.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/isnan.h>

#include <algorithm>
#include <sstream>

namespace hypermoe {
namespace {

// One tensor's bad elements on one rank. The place is the same at every layout: the parameter's
// number in the model, and the expert's.
struct Finding {
  int64_t parameter = 0, expert = 0;
  int64_t nan = 0, infinite = 0, elements = 0;
  std::string name;

  bool IsBefore(const Finding& other) const {
    return parameter != other.parameter ? parameter < other.parameter : expert < other.expert;
  }
  bool IsOf(const Finding& other) const {
    return parameter == other.parameter && expert == other.expert;
  }
};

std::string TextOf(const Finding& finding) {
  std::ostringstream text;
  text << finding.parameter << ' ' << finding.expert << ' ' << finding.nan << ' '
       << finding.infinite << ' ' << finding.elements << ' ' << finding.name;
  return text.str();
}

Finding FindingOf(const std::string& text) {
  Finding finding;
  std::istringstream(text) >> finding.parameter >> finding.expert >> finding.nan >>
      finding.infinite >> finding.elements >> finding.name;
  return finding;
}

// Counts in what this rank owns of the elements `tensor` of a buffer.
void Count(const FlatBuffer& buffer, RowRange tensor, const std::vector<RowRange>& own,
           Finding* finding) {
  for (const RowRange& part : own) {
    const int64_t begin = std::max(part.begin, tensor.begin), end = std::min(part.end, tensor.end);
    if (begin >= end) continue;
    const at::Tensor gradients = buffer.gradients().slice(0, begin, end);
    finding->nan += at::isnan(gradients).sum().item<int64_t>();
    finding->infinite += at::isinf(gradients).sum().item<int64_t>();
  }
}

// The parameters of all buffers, which stand in one array in the order they were made.
std::vector<const Parameter*> InModelOrder(const std::vector<FlatBuffer>& buffers) {
  std::vector<const Parameter*> parameters;
  for (const FlatBuffer& buffer : buffers) {
    parameters.insert(parameters.end(), buffer.parameters().begin(), buffer.parameters().end());
  }
  std::sort(parameters.begin(), parameters.end());
  return parameters;
}

// The parts of a buffer that this rank owns and that hold something bad.
std::vector<RowRange> BadParts(const std::vector<FlatBuffer>& buffers,
                               const std::vector<GradientBucket>& buckets, size_t buffer) {
  std::vector<RowRange> parts;
  for (const GradientBucket& bucket : buckets) {
    const RowRange part = bucket.OwnPart();
    if (bucket.buffer != buffer || part.size() == 0) continue;
    const at::Tensor gradients = buffers[buffer].gradients().narrow(0, part.begin, part.size());
    if (!at::isfinite(gradients).all().item<bool>()) parts.push_back(part);
  }
  return parts;
}

// This rank's first, or one without elements.
Finding FirstHere(const std::vector<FlatBuffer>& buffers,
                  const std::vector<GradientBucket>& buckets) {
  const std::vector<const Parameter*> order = InModelOrder(buffers);
  Finding first;
  for (size_t b = 0; b < buffers.size(); ++b) {
    const FlatBuffer& buffer = buffers[b];
    const std::vector<RowRange> bad = BadParts(buffers, buckets, b);
    for (size_t p = 0; p < buffer.parameters().size() && !bad.empty(); ++p) {
      const Parameter& parameter = *buffer.parameters()[p];
      if (parameter.frozen) continue;
      Finding finding;
      finding.parameter = std::lower_bound(order.begin(), order.end(), &parameter) - order.begin();
      finding.expert = parameter.first_expert;
      for (const NamedTensor& view : GlobalViews(parameter, buffer.View(buffer.gradients(), p))) {
        const int64_t begin = view.tensor.storage_offset();
        finding.name = view.name;
        finding.elements = view.tensor.numel();
        finding.nan = finding.infinite = 0;
        Count(buffer, {begin, begin + finding.elements}, bad, &finding);
        const bool found = finding.nan + finding.infinite > 0;
        if (found && (first.elements == 0 || finding.IsBefore(first))) first = finding;
        ++finding.expert;
      }
    }
  }
  return first;
}

}  // namespace

std::string FirstBadGradient(const std::vector<FlatBuffer>& buffers,
                             const std::vector<GradientBucket>& buckets, Communicator& world) {
  const std::vector<std::string> texts = world.AllGatherText(TextOf(FirstHere(buffers, buckets)));
  Finding first;
  std::string ranks;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const Finding finding = FindingOf(texts[rank]);
    if (finding.elements == 0) continue;
    if (first.elements == 0 || finding.IsBefore(first)) {
      first = finding;
      ranks = std::to_string(rank);
    } else if (finding.IsOf(first)) {
      first.nan += finding.nan;
      first.infinite += finding.infinite;
      ranks += ", " + std::to_string(rank);
    }
  }
  if (first.elements == 0) return "";
  std::ostringstream text;
  text << first.name << " (" << first.nan << " NaN and " << first.infinite << " infinite of "
       << first.elements << ", found on rank" << (ranks.find(',') == std::string::npos ? " " : "s ")
       << ranks << ")";
  return text.str();
}

}  // namespace hypermoe
