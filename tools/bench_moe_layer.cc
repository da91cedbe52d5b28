// Times one sparse sub-layer, forward and backward, in its different forms side by side: the plain
// mixture of experts, HyperMoE in each execution, and a shared expert. One pass of each in turn,
// there and back (A B C, C B A, ...), so that a drift of the machine meets all alike. Form gemm is
// what the machine can do: the products of one expert that has all the rows, and nothing else.
//
// A pass is all that a training step of one micro-batch does for the layer: router, permutation,
// experts, generation of the HyperExperts and its backward. Weights and their gradients are shared
// by the forms, so that memory holds one set of experts.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <sys/resource.h>
#include <torch/csrc/autograd/autograd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "model/config_values.h"
#include "model/gpt2.h"
#include "model/moe_layer.h"
#include "runtime/config_loader.h"
#include "tools/benchmark.h"
#include "tools/expert_gemms.h"

namespace hypermoe {
namespace {

struct Arguments {
  std::vector<std::string> forms = {"moe", "owner", "source", "bilinear", "per_token", "moe_share"};
  std::vector<int> experts = {8, 64}, bottlenecks = {16, 64};
  int tokens = 4096, width = 768, ffn = 3072, top_k = 1, rounds = 8, warmup = 2, threads = 0;
  std::string dtype = "float32";
  bool evaluation = false, json = false;
  std::vector<std::string> overrides;
};

// Minor page faults of the process so far: memory touched for the first time since the kernel gave
// it.
int64_t PageFaults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

absl::StatusOr<RunConfig> ConfigOf(const Arguments& arguments, const std::string& form, int experts,
                                   int bottleneck) {
  const bool plain = form == "moe" || form == "moe_share" || form == "gemm";
  std::vector<std::string> settings = {
      absl::StrCat("model.kind=", !plain           ? "hyper"
                                  : form == "gemm" ? "moe"
                                                   : form),
      "model.num_layers=1", "model.num_heads=1",
      absl::StrCat("model.hidden_size=", arguments.width),
      absl::StrCat("model.ffn_size=", arguments.ffn), absl::StrCat("model.num_experts=", experts),
      absl::StrCat("model.top_k=", arguments.top_k),
      absl::StrCat("hyper.bottleneck_dim=", bottleneck),
      absl::StrCat("runtime.dtype=", arguments.dtype),
      // Not zero, as after some training.
      "hyper.init=normal_1e2", "train.steps=1", "optimizer.warmup_steps=0"};
  if (!plain) settings.push_back(absl::StrCat("hyper.execution=", form));
  settings.insert(settings.end(), arguments.overrides.begin(), arguments.overrides.end());
  ASSIGN_OR_RETURN(RunConfig config, LoadConfig("", settings));
  RETURN_IF_ERROR(ValidateConfig(config));
  return config;
}

at::ScalarType DtypeOf(const Arguments& arguments) {
  return arguments.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

// The layer in one of its forms, and what its passes took.
class Form {
 public:
  Form(std::string name, const RunConfig& config, const Arguments& arguments, at::Device device)
      : name_(std::move(name)), device_(device) {
    if (name_ == "gemm") {
      gemms_.emplace(arguments.width, arguments.ffn, arguments.top_k,
                     at::device(device).dtype(DtypeOf(arguments)));
      return;
    }
    ParameterFactory factory(1, at::device(device).dtype(at::kFloat), &parameters_);
    SparseParts parts;
    parts.dispatcher = std::make_shared<TokenDispatcher>(NewSelfCommunicator("expert"),
                                                         config.model().num_experts());
    if (config.model().kind() == ModelConfig::hyper) {
      hyper_ = std::make_unique<HyperNetwork>(
          config.hyper(), config.model(), SparseLayers(config.model()), parts.dispatcher, factory);
      parts.hyper = hyper_.get();
    }
    layer_ = std::make_unique<MoeLayer>("h.0.mlp.", config.model(), parts, factory);
  }

  const std::string& name() const { return name_; }
  const std::vector<double>& seconds() const { return seconds_; }
  const std::vector<double>& page_faults() const { return page_faults_; }
  bool is_hyper() const { return hyper_ != nullptr; }
  // Of the last pass.
  const at::Tensor& output() const { return output_TD_; }

  // Takes the values and gradients that `shared` has under a parameter's name, or puts its own
  // there.
  void Share(std::map<std::string, at::Tensor>* shared) {
    for (Parameter& parameter : parameters_) {
      const auto [found, is_new] = shared->try_emplace(parameter.name, parameter.value);
      if (is_new) {
        parameter.value.mutable_grad() = at::zeros_like(parameter.value.detach());
      } else {
        parameter.value.set_data(found->second.detach());
        parameter.value.mutable_grad() = found->second.grad();
      }
    }
  }

  void Time(const at::Tensor& x_TD, const at::Tensor& grad_TD, bool counts) {
    WaitForDevice(device_);
    const int64_t faults = PageFaults();
    const auto begin = std::chrono::steady_clock::now();
    Pass(x_TD, grad_TD);
    WaitForDevice(device_);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    if (!counts) return;
    seconds_.push_back(passed.count());
    page_faults_.push_back(static_cast<double>(PageFaults() - faults));
  }

 private:
  // Without a gradient to start from: evaluation, in which HyperExperts are kept.
  void Pass(const at::Tensor& x_TD, const at::Tensor& grad_TD) {
    if (gemms_.has_value()) {
      const at::NoGradGuard no_grad;
      output_TD_ = gemms_->Run(x_TD, grad_TD);
      return;
    }
    const at::AutoGradMode mode(grad_TD.defined());
    const at::Tensor x = grad_TD.defined() ? x_TD.detach().set_requires_grad(true) : x_TD;
    std::vector<RoutingResult> routing;
    MoePass pass;
    const at::Tensor y_TD = layer_->Forward(x, pass, &routing);
    output_TD_ = y_TD.detach();
    if (!grad_TD.defined()) return;
    torch::autograd::backward({y_TD}, {grad_TD});
    if (hyper_ != nullptr) {
      hyper_->BackwardThroughGeneration();
      hyper_->Invalidate();
    }
  }

  std::string name_;
  at::Device device_;
  std::vector<Parameter> parameters_;
  std::unique_ptr<HyperNetwork> hyper_;
  std::unique_ptr<MoeLayer> layer_;
  std::optional<ExpertGemms> gemms_;  // instead of a layer
  std::vector<double> seconds_, page_faults_;
  at::Tensor output_TD_;
};

at::Tensor RandomRows(const Arguments& arguments, const char* name, at::Device device) {
  return RandomMatrix(arguments.tokens, arguments.width, name,
                      at::device(device).dtype(DtypeOf(arguments)));
}

// How far the outputs of HyperMoE's executions, which have the same weights, are from those of the
// first of them, relative to the largest.
double DifferenceOf(const Form& form, const std::vector<Form>& forms) {
  for (const Form& first : forms) {
    if (!first.is_hyper() || !form.is_hyper()) continue;
    const at::Tensor expected = first.output().to(at::kDouble);
    return ((form.output().to(at::kDouble) - expected).abs().max() / expected.abs().max())
        .item<double>();
  }
  return 0;
}

// Of the experts' matrix products, the same for all forms.
double TeraFlops(const Arguments& arguments) {
  const double multiply_adds =
      2.0 * arguments.tokens * arguments.top_k * arguments.width * arguments.ffn;
  return 2e-12 * multiply_adds * (arguments.evaluation ? 1 : 3);
}

std::vector<nlohmann::json> ResultsOf(const Arguments& arguments, const std::vector<Form>& forms,
                                      int experts, int bottleneck) {
  std::vector<nlohmann::json> results;
  for (const Form& form : forms) {
    const Quartiles milliseconds = QuartilesOf(form.seconds());
    nlohmann::json result = {{"form", form.name()},
                             {"experts", experts},
                             {"bottleneck", bottleneck},
                             {"milliseconds", 1e3 * milliseconds.median},
                             {"lower_quartile", 1e3 * milliseconds.lower},
                             {"upper_quartile", 1e3 * milliseconds.upper},
                             {"tflops", TeraFlops(arguments) / milliseconds.median},
                             {"page_faults", QuartilesOf(form.page_faults()).median},
                             {"difference", DifferenceOf(form, forms)}};
    std::vector<double> ratios;
    for (size_t i = 0; i < form.seconds().size(); ++i) {
      ratios.push_back(form.seconds()[i] / forms[0].seconds()[i]);
    }
    const Quartiles ratio = QuartilesOf(ratios);
    result["over"] = forms[0].name();
    result["ratio"] = ratio.median;
    result["ratio_lower_quartile"] = ratio.lower;
    result["ratio_upper_quartile"] = ratio.upper;
    results.push_back(result);
  }
  return results;
}

// All forms at one number of experts and one bottleneck.
absl::StatusOr<std::vector<nlohmann::json>> Compare(const Arguments& arguments, int experts,
                                                    int bottleneck, at::Device device) {
  std::vector<Form> forms;
  std::map<std::string, at::Tensor> shared;
  for (const std::string& name : arguments.forms) {
    ASSIGN_OR_RETURN(const RunConfig config, ConfigOf(arguments, name, experts, bottleneck));
    forms.emplace_back(name, config, arguments, device);
    forms.back().Share(&shared);
  }
  const at::Tensor x_TD = RandomRows(arguments, "x", device);
  const at::Tensor grad_TD =
      arguments.evaluation ? at::Tensor() : RandomRows(arguments, "grad", device);
  const auto count = static_cast<int>(forms.size());
  for (int round = 0; round < arguments.warmup + arguments.rounds; ++round) {
    for (int i = 0; i < count; ++i) {
      forms[round % 2 == 0 ? i : count - 1 - i].Time(x_TD, grad_TD, round >= arguments.warmup);
    }
  }
  return ResultsOf(arguments, forms, experts, bottleneck);
}

std::string TableText(const Arguments& arguments, const std::vector<nlohmann::json>& results) {
  std::string text = absl::StrFormat(
      "# %d tokens, width %d, experts' inner width %d, top %d, %s, %s, %d rounds\n",
      arguments.tokens, arguments.width, arguments.ffn, arguments.top_k, arguments.dtype,
      arguments.evaluation ? "forward alone, HyperExperts kept" : "forward and backward",
      arguments.rounds);
  absl::StrAppendFormat(&text, "%7s %10s %-10s %9s %9s %9s %8s   %8s %19s %12s %11s\n", "experts",
                        "bottleneck", "form", "ms", "lower q.", "upper q.", "TFLOP/s",
                        absl::StrCat("/ ", results[0]["over"].get<std::string>()), "(quartiles)",
                        "page faults", "difference");
  for (const nlohmann::json& r : results) {
    absl::StrAppendFormat(
        &text, "%7d %10d %-10s %9.2f %9.2f %9.2f %8.3f   %8.3f   (%.3f to %.3f) %12.0f %11.1e\n",
        r["experts"].get<int>(), r["bottleneck"].get<int>(), r["form"].get<std::string>(),
        r["milliseconds"].get<double>(), r["lower_quartile"].get<double>(),
        r["upper_quartile"].get<double>(), r["tflops"].get<double>(), r["ratio"].get<double>(),
        r["ratio_lower_quartile"].get<double>(), r["ratio_upper_quartile"].get<double>(),
        r["page_faults"].get<double>(), r["difference"].get<double>());
  }
  return text;
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  if (world->size() != 1) {
    return UsageError(absl::StrCat("bench_moe_layer was started on ", world->size(),
                                   " ranks, expected 1: start it without mpirun"));
  }
  if (arguments.dtype != "float32" && arguments.dtype != "bfloat16") {
    return UsageError(
        absl::StrCat("--dtype is '", arguments.dtype, "': expected float32 or bfloat16"));
  }
  ASSIGN_OR_RETURN(const RunConfig config, LoadConfig("", arguments.overrides));
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), config.mesh()));
  const int threads = UseThreads(arguments.threads);
  const nlohmann::json machine = DescribeMachine(1, threads);
  std::vector<nlohmann::json> results;
  for (const int experts : arguments.experts) {
    for (const int bottleneck : arguments.bottlenecks) {
      ASSIGN_OR_RETURN(const std::vector<nlohmann::json> compared,
                       Compare(arguments, experts, bottleneck, world->device()));
      results.insert(results.end(), compared.begin(), compared.end());
    }
  }
  if (!arguments.json) return WriteStdout(MachineText(machine) + TableText(arguments, results));
  std::string text = nlohmann::json{{"machine", machine}}.dump() + "\n";
  for (const nlohmann::json& result : results) text += result.dump() + "\n";
  return WriteStdout(text);
}

void AddOptions(CLI::App& app, Arguments* arguments) {
  app.add_option(
         "--form", arguments->forms,
         "Forms to compare, each with the first: moe, moe_share, or HyperMoE in an "
         "execution (owner, source, bilinear, per_token); gemm: one expert's matrix products alone")
      ->delimiter(',')
      ->check(
          CLI::IsMember({"moe", "moe_share", "owner", "source", "bilinear", "per_token", "gemm"}))
      ->capture_default_str();
  app.add_option("--experts", arguments->experts, "Numbers of experts")
      ->delimiter(',')
      ->check(Within(1, 4096))
      ->capture_default_str();
  app.add_option("--bottleneck", arguments->bottlenecks, "Inner widths of HyperExperts")
      ->delimiter(',')
      ->check(Within(1, 65536))
      ->capture_default_str();
  AddNumber(app, "--tokens", &arguments->tokens, 1, "Tokens of a pass");
  AddNumber(app, "--width", &arguments->width, 1, "Width of the residual stream");
  AddNumber(app, "--ffn", &arguments->ffn, 1, "Inner width of an expert");
  AddNumber(app, "--top_k", &arguments->top_k, 1, "Experts of a token");
  AddNumber(app, "--rounds", &arguments->rounds, 1, "Passes of each form that are timed");
  AddNumber(app, "--warmup", &arguments->warmup, 0, "Passes of each form before those");
  AddNumber(app, "--threads", &arguments->threads, 0,
            "Threads; 0: the cores that the process may use");
  app.add_option("--dtype", arguments->dtype, "float32 or bfloat16")->capture_default_str();
  app.add_flag("--evaluation", arguments->evaluation,
               "Forward alone, with HyperExperts generated once before");
  AddSetOption(app, &arguments->overrides,
               "Change one field of the configuration of all forms; may be repeated");
  app.add_flag("--json", arguments->json, "JSON lines instead of a table");
}

int Main(int argc, char** argv) {
  CLI::App app("Times one sparse sub-layer in its different forms.", "bench_moe_layer");
  Arguments arguments;
  AddOptions(app, &arguments);
  app.footer(
      "Example:\n"
      "  build/bench_moe_layer --experts 8 --bottleneck 64 --form moe,source,per_token");
  return RunBenchmark(argc, argv, app, [&arguments](std::shared_ptr<Communicator> world) {
    return Run(arguments, std::move(world));
  });
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
