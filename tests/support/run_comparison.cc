#include "tests/support/run_comparison.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/checkpoint_tensors.h"
#include "runtime/config_loader.h"

namespace hypermoe {
namespace {

constexpr const char* kNotComparable[] = {"seconds",    "tokens_per_second", "memory_bytes",
                                          "bytes_sent", "traffic",           "mfu"};

// Adds what differs between two checkpoints of one step.
class CheckpointComparison {
 public:
  CheckpointComparison(std::string reference, std::string checkpoint,
                       std::vector<std::string>* differences)
      : reference_(std::move(reference)),
        checkpoint_(std::move(checkpoint)),
        differences_(differences) {}

  void Compare() {
    const auto expected = ReadManifest(reference_), actual = ReadManifest(checkpoint_);
    if (!expected.ok()) return Add(std::string(expected.status().message()));
    if (!actual.ok()) return Add(std::string(actual.status().message()));
    CompareInfo(*expected, *actual);
    const CheckpointTensors expected_tensors(reference_, *expected, CheckpointTensors::Part::kAll);
    const CheckpointTensors actual_tensors(checkpoint_, *actual, CheckpointTensors::Part::kAll);
    for (const auto& [name, entry] : expected_tensors.entries()) {
      CompareTensors(name, expected_tensors.Read(name), actual_tensors.Read(name));
    }
    for (const auto& [name, entry] : actual_tensors.entries()) {
      if (!expected_tensors.entries().contains(name)) Add(name + " is not in the reference");
    }
  }

 private:
  void Add(const std::string& what) {
    differences_->push_back(absl::StrCat(checkpoint_, ": ", what));
  }

  void CompareInfo(const CheckpointManifest& expected, const CheckpointManifest& actual) {
    const CheckpointInfo &wanted = expected.info, &got = actual.info;
    if (got.step != wanted.step) Add(absl::StrCat("step ", got.step, ", not ", wanted.step));
    if (actual.optimizer_steps != expected.optimizer_steps) {
      Add(absl::StrCat(actual.optimizer_steps, " optimizer updates, not ",
                       expected.optimizer_steps));
    }
    if (got.data_fingerprint != wanted.data_fingerprint) {
      Add(absl::StrCat("data ", got.data_fingerprint, ", not ", wanted.data_fingerprint));
    }
    const absl::Status config = CheckResumable(wanted.config, got.config, reference_);
    if (!config.ok()) Add(std::string(config.message()));
  }

  void CompareTensors(const std::string& name, const absl::StatusOr<at::Tensor>& expected,
                      const absl::StatusOr<at::Tensor>& actual) {
    if (!expected.ok()) return Add(std::string(expected.status().message()));
    if (!actual.ok()) return Add(std::string(actual.status().message()));
    if (actual->scalar_type() != expected->scalar_type() || actual->sizes() != expected->sizes())
      return Add(name + " has another dtype or shape");
    // Bytes, not values: 0 and -0 are not the same, a NaN is the same as itself.
    const at::Tensor a = expected->contiguous(), b = actual->contiguous();
    if (std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) != 0)
      Add(name + " differs");
  }

  std::string reference_, checkpoint_;
  std::vector<std::string>* differences_;
};

std::string Shown(const nlohmann::json& value) {
  return value.is_number_float() ? absl::StrFormat("%a", value.get<double>()) : value.dump();
}

// What differs in two lines that are not the same, floating-point numbers in hexadecimal.
std::string LineDifference(const nlohmann::json& expected, const nlohmann::json& actual) {
  std::string text = absl::StrCat("step ", actual.value("step", -1), ":");
  for (const auto& [key, value] : expected.items()) {
    const std::string got = actual.contains(key) ? Shown(actual[key]) : "missing";
    if (got != Shown(value)) absl::StrAppend(&text, " ", key, " ", got, ", not ", Shown(value));
  }
  return text;
}

// The next whole line of comparable content, or nothing.
std::optional<std::string> NextLine(std::ifstream& in) {
  std::string line;
  if (!std::getline(in, line) || in.eof()) return std::nullopt;
  return ComparableLine(line);
}

void CompareMetrics(const std::string& reference, const std::string& run, RunComparison* result) {
  std::ifstream expected(reference + "/metrics.jsonl"), actual(run + "/metrics.jsonl");
  while (const std::optional<std::string> line = NextLine(actual)) {
    ++result->lines;
    const std::optional<std::string> wanted = NextLine(expected);
    if (line == wanted) continue;
    const std::string where = absl::StrCat(run, "/metrics.jsonl, line ", result->lines, ": ");
    const auto got = nlohmann::json::parse(*line, nullptr, /*allow_exceptions=*/false);
    // Lines after one that is not JSON, or too many, would only repeat the finding.
    if (!wanted.has_value() || !got.is_object()) {
      result->differences.push_back(where + (wanted ? "not JSON" : "not in the reference"));
      return;
    }
    result->differences.push_back(where + LineDifference(nlohmann::json::parse(*wanted), got));
  }
}

}  // namespace

std::string ComparableLine(const std::string& line) {
  nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return line;
  for (const char* key : kNotComparable) json.erase(key);
  return json.dump();
}

RunComparison CompareRuns(const std::string& reference, const std::string& run) {
  RunComparison result;
  const auto steps = CheckpointSteps(run);
  if (!steps.ok()) result.differences.emplace_back(steps.status().message());
  result.checkpoints = steps.value_or(std::vector<int64_t>());
  std::sort(result.checkpoints.begin(), result.checkpoints.end());
  for (const int64_t step : result.checkpoints) {
    CheckpointComparison(CheckpointPath(reference, step), CheckpointPath(run, step),
                         &result.differences)
        .Compare();
  }
  CompareMetrics(reference, run, &result);
  return result;
}

}  // namespace hypermoe
