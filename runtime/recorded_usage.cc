#include "runtime/recorded_usage.h"

#include <unistd.h>

#include <cmath>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/expert_watch.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

using nlohmann::json;

// Of one step, by sparse layer.
struct StepCounts {
  std::vector<std::vector<int64_t>> tokens;
  std::vector<int64_t> dropped;
};

double NumberOf(const json& line, const char* name) {
  const auto found = line.find(name);
  return found != line.end() && found->is_number() ? found->get<double>() : NAN;
}

double DroppedShare(const StepCounts& counts) {
  double tokens = 0, dropped = 0;
  for (size_t layer = 0; layer < counts.tokens.size(); ++layer) {
    for (const int64_t count : counts.tokens[layer]) tokens += static_cast<double>(count);
    dropped += static_cast<double>(counts.dropped[layer]);
  }
  return tokens > 0 ? dropped / tokens : 0;
}

double IdleExperts(const StepCounts& counts) {
  int64_t idle = 0;
  for (const auto& layer : counts.tokens) {
    for (const int64_t count : layer) idle += count == 0 ? 1 : 0;
  }
  return static_cast<double>(idle);
}

// Throws what JSON throws for a line of another form.
StepCounts CountsOf(const json& line) {
  StepCounts counts;
  counts.tokens = line.at("expert_load").get<std::vector<std::vector<int64_t>>>();
  counts.dropped = line.at("dropped_tokens").get<std::vector<int64_t>>();
  return counts;
}

class Reader {
 public:
  Reader(const std::string& path, int64_t last_step) : path_(path), last_step_(last_step) {}

  absl::Status Read(absl::string_view text) {
    for (int64_t number = 1; !text.empty(); ++number) {
      const size_t newline = text.find('\n');
      // A job died while writing it.
      if (newline == absl::string_view::npos) break;
      const absl::string_view line = text.substr(0, newline);
      if (!Add(json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false))) {
        return DataError(absl::StrCat(Printable(path_), ", line ", number,
                                      ": not what a run writes of a step; repair or remove it"));
      }
      text.remove_prefix(newline + 1);
    }
    return absl::OkStatus();
  }

  std::optional<RecordedUsage> Finish() {
    if (window_.empty()) return std::nullopt;
    const StepCounts& last = window_.back();
    usage_.last_steps = static_cast<int64_t>(window_.size());
    usage_.tokens_LN = Matrix(static_cast<int64_t>(last.tokens.size()),
                              static_cast<int64_t>(last.tokens[0].size()));
    usage_.dropped_L.resize(last.tokens.size());
    for (const StepCounts& step : window_) {
      for (size_t layer = 0; layer < step.tokens.size(); ++layer) {
        usage_.dropped_L[layer] += static_cast<double>(step.dropped[layer]);
        for (size_t expert = 0; expert < step.tokens[layer].size(); ++expert) {
          usage_.tokens_LN(static_cast<int64_t>(layer), static_cast<int64_t>(expert)) +=
              static_cast<double>(step.tokens[layer][expert]);
        }
      }
    }
    return usage_;
  }

 private:
  // Whether all lines, and all layers, count the same experts.
  bool Fits(const StepCounts& counts) const {
    const auto& first = window_.empty() ? counts : window_.front();
    if (counts.tokens.size() != first.tokens.size()) return false;
    if (counts.dropped.size() != counts.tokens.size()) return false;
    for (const auto& layer : counts.tokens) {
      if (layer.empty() || layer.size() != first.tokens[0].size()) return false;
    }
    return true;
  }

  bool Add(const json& line) {
    if (!line.is_object()) return false;
    const auto kind = line.find("kind"), step = line.find("step");
    if (kind == line.end() || step == line.end() || !step->is_number_integer()) return false;
    if (*kind != "train" || step->get<int64_t>() > last_step_) return true;
    StepCounts counts;
    try {
      counts = CountsOf(line);
      if (counts.tokens.empty()) return true;  // a dense model
      if (!Fits(counts)) return false;
      const auto shares = line.find("hyper_shares");
      usage_.hyper_shares_L.clear();
      if (shares != line.end()) {
        for (const json& share : *shares)
          usage_.hyper_shares_L.push_back(share.is_number() ? share.get<double>() : NAN);
      }
    } catch (const json::exception&) {
      return false;
    }
    usage_.steps.push_back({step->get<int64_t>(), NumberOf(line, "expert_load_max_over_mean"),
                            IdleExperts(counts), DroppedShare(counts),
                            NumberOf(line, "hyper_share")});
    window_.push_back(std::move(counts));
    if (window_.size() > kDeadAfterSteps) window_.pop_front();
    return true;
  }

  std::string path_;
  int64_t last_step_;
  RecordedUsage usage_;
  std::deque<StepCounts> window_;
};

}  // namespace

absl::StatusOr<std::optional<RecordedUsage>> ReadRecordedUsage(const std::string& path,
                                                               int64_t last_step) {
  if (access(path.c_str(), F_OK) != 0) return std::optional<RecordedUsage>();
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  Reader reader(path, last_step);
  RETURN_IF_ERROR(reader.Read({file->data(), file->size()}));
  return reader.Finish();
}

}  // namespace hypermoe
