#include "tools/step_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "runtime/process_memory.h"
#include "tools/benchmark.h"

namespace hypermoe {
namespace {

const char* NameOf(TimedWork work) {
  switch (work) {
    case TimedWork::kEvaluation:
      return "evaluation";
    case TimedWork::kGeneration:
      return "generation";
    case TimedWork::kTraining:
      break;
  }
  return "training";
}

// Shares of the median step: the median of each phase over the sum of them. all_to_all is part of
// forward and backward.
nlohmann::json Shares(const std::vector<StepSeconds>& phases) {
  const auto median = [&phases](double StepSeconds::*phase) {
    std::vector<double> values;
    for (const StepSeconds& seconds : phases) values.push_back(seconds.*phase);
    return QuartilesOf(values).median;
  };
  StepSeconds s;
  for (double StepSeconds::*phase :
       {&StepSeconds::data, &StepSeconds::forward, &StepSeconds::backward, &StepSeconds::reduce,
        &StepSeconds::optimizer, &StepSeconds::all_to_all}) {
    s.*phase = median(phase);
  }
  const double total = s.total();
  return {{"data", s.data / total},           {"forward", s.forward / total},
          {"backward", s.backward / total},   {"reduce", s.reduce / total},
          {"optimizer", s.optimizer / total}, {"all_to_all", s.all_to_all / total}};
}

nlohmann::json ResultOf(const TimedModel& model) {
  const Quartiles seconds = QuartilesOf(model.step_seconds);
  const double tokens = static_cast<double>(model.Tokens());
  nlohmann::json result = {{"program", "hypermoe"},
                           {"work", NameOf(model.work)},
                           {"kind", model.name},
                           {"dtype", RuntimeConfig::Dtype_Name(model.config.runtime().dtype())},
                           {"batch", model.config.train().batch_size()},
                           {"sequence", model.config.model().sequence_length()},
                           {"tokens", model.Tokens()},
                           {"steps", model.step_seconds.size()},
                           {"tokens_per_second", tokens / seconds.median},
                           {"lower_quartile", tokens / seconds.upper},
                           {"upper_quartile", tokens / seconds.lower},
                           {"host_reads", model.host_reads}};
  if (model.work == TimedWork::kGeneration) return result;
  result["loss"] = model.loss;
  if (model.work == TimedWork::kEvaluation) return result;
  result["shares"] = Shares(model.phases);
  result["bytes_sent"] = model.bytes_sent;
  if (model.drift_seconds.empty()) return result;
  const double check = QuartilesOf(model.drift_seconds).median;
  const int64_t every = model.config.train().drift_check_every();
  result["drift_check"] = {
      {"seconds", check},
      {"every", every},
      {"share_of_steps", check / (seconds.median * static_cast<double>(every))}};
  return result;
}

// Step time of `upper` over that of `lower`, of the steps that ran beside each other.
nlohmann::json RatioOf(const TimedModel& upper, const TimedModel& lower) {
  std::vector<double> ratios;
  for (size_t i = 0; i < upper.step_seconds.size(); ++i) {
    ratios.push_back(upper.step_seconds[i] / lower.step_seconds[i] *
                     static_cast<double>(lower.Tokens()) / static_cast<double>(upper.Tokens()));
  }
  const Quartiles ratio = QuartilesOf(ratios);
  return {{"time_of", upper.name},
          {"over", lower.name},
          {"ratio", ratio.median},
          {"lower_quartile", ratio.lower},
          {"upper_quartile", ratio.upper}};
}

std::string TableLine(const nlohmann::json& result, int name_width) {
  const std::string speed = absl::StrFormat(
      "%-*s %9.1f %9.1f %9.1f", name_width, result["kind"].get<std::string>(),
      result["tokens_per_second"].get<double>(), result["lower_quartile"].get<double>(),
      result["upper_quartile"].get<double>());
  if (!result.contains("loss")) return speed + "\n";
  const double loss = result["loss"].get<double>();
  if (!result.contains("shares")) return absl::StrFormat("%s %8.3f\n", speed, loss);
  const nlohmann::json& shares = result["shares"];
  const auto percent = [&shares](const char* phase) { return 100 * shares[phase].get<double>(); };
  return absl::StrFormat("%s %6.1f %8.1f %9.1f %7.1f %10.1f %11.1f %8.3f\n", speed, percent("data"),
                         percent("forward"), percent("backward"), percent("reduce"),
                         percent("optimizer"), percent("all_to_all"), loss);
}

// The lines above the models'.
std::string HeadText(const nlohmann::json& first, int name_width) {
  const bool training = first.contains("shares"), generation = !first.contains("loss");
  const std::string work = first["work"].get<std::string>();
  std::string text = absl::StrFormat(
      "# %s: %d rows of %d tokens, %d tokens counted, %s, %d steps of each after the warm-up\n",
      work, first["batch"].get<int>(), first["sequence"].get<int>(), first["tokens"].get<int64_t>(),
      first["dtype"].get<std::string>(), first["steps"].get<int>());
  absl::StrAppendFormat(
      &text, "%*s %29s   %s\n", name_width, "", "tokens/s",
      training ? "% of the step (all-to-all is part of forward and backward)" : "");
  absl::StrAppendFormat(&text, "%-*s %9s %9s %9s %s%s\n", name_width, "kind", "median", "lower q.",
                        "upper q.",
                        training ? "  data  forward  backward  reduce  optimizer  all-to-all " : "",
                        generation ? "" : "    loss");
  return text;
}

std::string TableText(const nlohmann::json& machine, const std::vector<nlohmann::json>& results,
                      const std::vector<nlohmann::json>& ratios) {
  size_t width = 5;
  for (const nlohmann::json& result : results) {
    width = std::max(width, result["kind"].get<std::string>().size());
  }
  const int name_width = static_cast<int>(width);
  std::string text = MachineText(machine) + HeadText(results.front(), name_width);
  for (const nlohmann::json& result : results) text += TableLine(result, name_width);
  for (const nlohmann::json& result : results) {
    if (!result.contains("drift_check")) continue;
    const nlohmann::json& check = result["drift_check"];
    absl::StrAppendFormat(
        &text, "comparison of the replicas, %s: %.3f ms, %.4f %% of the time of %d steps\n",
        result["kind"].get<std::string>(), 1e3 * check["seconds"].get<double>(),
        100 * check["share_of_steps"].get<double>(), check["every"].get<int64_t>());
  }
  for (const nlohmann::json& ratio : ratios) {
    absl::StrAppendFormat(&text, "time a token, %s / %s: %.4f (quartiles %.4f to %.4f)\n",
                          ratio["time_of"].get<std::string>(), ratio["over"].get<std::string>(),
                          ratio["ratio"].get<double>(), ratio["lower_quartile"].get<double>(),
                          ratio["upper_quartile"].get<double>());
  }
  absl::StrAppendFormat(&text, "peak memory of rank 0, all kinds together: %.2f GiB\n",
                        machine["peak_memory_gib"].get<double>());
  return text;
}

}  // namespace

absl::Status PrintSteps(const std::vector<TimedModel>& models, bool json, nlohmann::json machine) {
  machine["peak_memory_gib"] = static_cast<double>(ReadProcessMemory().peak_resident) / (1 << 30);
  std::vector<nlohmann::json> results, ratios;
  for (size_t i = 0; i < models.size(); ++i) {
    results.push_back(ResultOf(models[i]));
    for (size_t j = 0; j < i; ++j) ratios.push_back(RatioOf(models[i], models[j]));
  }
  if (!json) return WriteStdout(TableText(machine, results, ratios));
  std::string text = nlohmann::json{{"machine", machine}}.dump() + "\n";
  for (const nlohmann::json& result : results) text += result.dump() + "\n";
  for (const nlohmann::json& ratio : ratios) text += ratio.dump() + "\n";
  return WriteStdout(text);
}

}  // namespace hypermoe
