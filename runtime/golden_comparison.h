// Compares what a model computes with a golden file, entry by entry.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hypermoe {

// How one entry differs.
struct EntryDifference {
  std::string name;
  bool ok = false;
  bool exact = false;    // integers: all elements must be equal
  int64_t elements = 0;  // of the entry
  int64_t unequal = 0;   // exact: elements that are not equal
  // Floating point: largest |actual - expected|, and what it is of the entry's scale. Infinity
  // where a number of either side is not finite.
  double absolute = 0;
  double relative = 0;
  // Where: the largest difference, or the first unequal element.
  std::vector<int64_t> index;
  double actual = 0, expected = 0;
  std::string problem;  // why nothing could be compared, or ""
};

// The scale of an entry is its largest expected magnitude, at least this.
constexpr double kSmallestScale = 1e-3;

// Floating point of any dtype, compared in double: ok if everything is finite and no difference
// exceeds tolerance * scale. Integers: ok if equal. Another shape, or another kind or width of
// integers, is a problem.
EntryDifference CompareEntry(const std::string& name, const at::Tensor& actual,
                             const at::Tensor& expected, double tolerance);

class GoldenComparison {
 public:
  // `entries` must outlive this.
  GoldenComparison(const std::map<std::string, at::Tensor>& entries, double tolerance)
      : entries_(entries), tolerance_(tolerance) {}

  // Whether the file has the entry: nothing else needs to be computed.
  bool Wants(const std::string& name) const { return entries_.contains(name); }
  // Compares `actual` with the entry of this name, if there is one.
  void Compare(const std::string& name, const at::Tensor& actual);
  // By name, one for each entry of the file: those that were never compared are not ok.
  std::vector<EntryDifference> Finish() const;

 private:
  const std::map<std::string, at::Tensor>& entries_;
  double tolerance_;
  std::map<std::string, EntryDifference> differences_;
};

}  // namespace hypermoe
