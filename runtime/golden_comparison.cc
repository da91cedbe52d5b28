#include "runtime/golden_comparison.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/fit_problems.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

std::string Describe(const at::Tensor& tensor) {
  return absl::StrCat(
      tensor.is_floating_point() ? "floating point" : SafetensorsDtype(tensor.scalar_type()), " ",
      ShapeText(tensor.sizes()));
}

// Element `flat` of both sides, and where it is.
void Locate(int64_t flat, const at::Tensor& actual, const at::Tensor& expected,
            EntryDifference* difference) {
  difference->actual = actual.reshape({-1})[flat].item<double>();
  difference->expected = expected.reshape({-1})[flat].item<double>();
  difference->index.assign(static_cast<size_t>(expected.dim()), 0);
  for (int64_t axis = expected.dim() - 1; axis >= 0; --axis) {
    difference->index[static_cast<size_t>(axis)] = flat % expected.size(axis);
    flat /= expected.size(axis);
  }
}

void CompareIntegers(const at::Tensor& actual, const at::Tensor& expected,
                     EntryDifference* difference) {
  const at::Tensor unequal = actual.ne(expected);
  difference->unequal = unequal.sum().item<int64_t>();
  difference->ok = difference->unequal == 0;
  if (!difference->ok)
    Locate(unequal.reshape({-1}).to(at::kByte).argmax().item<int64_t>(), actual, expected,
           difference);
}

void CompareNumbers(const at::Tensor& actual_any, const at::Tensor& expected_any, double tolerance,
                    EntryDifference* difference) {
  const at::Tensor actual = actual_any.to(at::kDouble), expected = expected_any.to(at::kDouble);
  const at::Tensor finite = at::isfinite(actual).logical_and(at::isfinite(expected));
  const at::Tensor error =
      (actual - expected).abs().masked_fill(~finite, std::numeric_limits<double>::infinity());
  const double scale =
      std::max(expected.abs().masked_fill(~finite, 0.0).max().item<double>(), kSmallestScale);
  difference->absolute = error.max().item<double>();
  difference->relative = difference->absolute / scale;
  difference->ok = std::isfinite(difference->absolute) && difference->absolute <= tolerance * scale;
  Locate(error.reshape({-1}).argmax().item<int64_t>(), actual, expected, difference);
}

}  // namespace

EntryDifference CompareEntry(const std::string& name, const at::Tensor& actual,
                             const at::Tensor& expected, double tolerance) {
  EntryDifference difference;
  difference.name = name;
  difference.exact = !expected.is_floating_point();
  difference.elements = expected.numel();
  const bool same_kind = difference.exact ? actual.scalar_type() == expected.scalar_type()
                                          : actual.is_floating_point();
  if (!same_kind || !actual.sizes().equals(expected.sizes())) {
    difference.problem =
        absl::StrCat("the file has ", Describe(expected), ", the model ", Describe(actual));
  } else if (difference.elements == 0) {
    difference.ok = true;
  } else if (difference.exact) {
    CompareIntegers(actual, expected, &difference);
  } else {
    CompareNumbers(actual.detach(), expected, tolerance, &difference);
  }
  return difference;
}

void GoldenComparison::Compare(const std::string& name, const at::Tensor& actual) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return;
  differences_[name] = CompareEntry(name, actual, found->second, tolerance_);
}

std::vector<EntryDifference> GoldenComparison::Finish() const {
  std::vector<EntryDifference> result;
  for (const auto& [name, expected] : entries_) {
    const auto found = differences_.find(name);
    if (found != differences_.end()) {
      result.push_back(found->second);
      continue;
    }
    EntryDifference missing;
    missing.name = name;
    missing.exact = !expected.is_floating_point();
    missing.elements = expected.numel();
    missing.problem = "not compared: the model computes nothing of this name";
    result.push_back(missing);
  }
  return result;
}

}  // namespace hypermoe
