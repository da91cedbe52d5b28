// Times the products that HyperExperts are made of, by the kernels of this project and by LibTorch
// in turn: kernels/small_gemm.h, for groups of rows side by side, and kernels/few_rows_linear.h,
// for the generation.
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/few_rows_linear.h"
#include "kernels/keyed_random.h"
#include "kernels/matrix_product.h"
#include "kernels/side_by_side.h"
#include "kernels/small_gemm.h"
#include "launch/commands.h"
#include "tools/benchmark.h"

namespace hypermoe {
namespace {

struct Arguments {
  std::vector<int> group_rows = {64, 256}, generated_rows = {8, 64};
  std::string dtype = "float32";
  int tokens = 4096, width = 768, bottleneck = 64, hidden = 128, rounds = 20, threads = 0;
};

struct Comparison {
  std::string name;
  double multiply_adds;
  std::function<void()> ours, library;
};

at::Tensor Random(at::IntArrayRef shape, const char* name, at::ScalarType dtype = at::kFloat) {
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  FillNormal(tensor, RandomKey{1, 0}.Derive(name), 1.0);
  return tensor.to(dtype);
}

double Milliseconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Multiply(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, bool add) {
  TORCH_CHECK(TrySmallGemm(c, a, b, add), "SmallGemm does not take ", a.sizes(), " by ", b.sizes());
}

// One product for every group: c_g = a_g b_g, or += with `add`.
Comparison Grouped(const std::string& name, const at::Tensor& c, const at::Tensor& a,
                   const at::Tensor& b, bool add) {
  const auto of = [](const at::Tensor& all, int64_t g) { return all.select(0, g % all.size(0)); };
  const int64_t groups = a.size(0);
  Comparison result{name, static_cast<double>(groups * a.size(1) * a.size(2) * b.size(2)), {}, {}};
  result.ours = [=] {
    SideBySide(groups, [&](int64_t g) { Multiply(of(c, g), of(a, g), of(b, g), add); });
  };
  result.library = [=] {
    SideBySide(groups, [&](int64_t g) {
      at::Tensor out = of(c, g);
      if (!add) {
        at::mm_out(out, of(a, g), of(b, g));
      } else if (out.scalar_type() == a.scalar_type()) {
        at::addmm_out(out, out, of(a, g), of(b, g));
      } else {
        out.add_(at::mm(of(a, g), of(b, g)));
      }
    });
  };
  return result;
}

// Forward and backward of HyperExperts, given as [G,D,A] and [G,A,D], on groups of `rows` tokens.
std::vector<Comparison> HyperExpertProducts(const Arguments& arguments, int64_t rows) {
  const int64_t groups = std::max<int64_t>(1, arguments.tokens / rows), d = arguments.width,
                a = arguments.bottleneck;
  const at::ScalarType dtype = arguments.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  const at::Tensor x = Random({groups, rows, d}, "x", dtype),
                   y = Random({groups, rows, d}, "y", dtype),
                   h = Random({groups, rows, a}, "h", dtype),
                   down = Random({groups, d, a}, "down", dtype),
                   up = Random({groups, a, d}, "up", dtype),
                   out_d = at::empty({groups, rows, d}, dtype),
                   out_a = at::empty({groups, rows, a}, dtype),
                   grad_down = at::zeros({groups, d, a}), grad_up = at::zeros({groups, a, d});
  const auto turned = [](const at::Tensor& all) { return all.transpose(1, 2); };
  return {Grouped("x down", out_a, x, down, false),
          Grouped("h up", out_d, h, up, false),
          Grouped("grad_y up^T", out_a, y, turned(up), false),
          Grouped("grad_h down^T", out_d, h, turned(down), false),
          Grouped("grad_down += x^T grad_h", grad_down, turned(x), h, true),
          Grouped("grad_up += h^T grad_y", grad_up, turned(h), y, true)};
}

std::vector<Comparison> GenerationProducts(const Arguments& arguments, int64_t rows) {
  const int64_t outputs = int64_t{arguments.width} * arguments.bottleneck;
  const at::Tensor k = Random({rows, arguments.hidden}, "k"),
                   weight = Random({outputs, arguments.hidden}, "weight"),
                   grad = Random({rows, outputs}, "grad"), sum = at::zeros_like(weight);
  const double multiply_adds = static_cast<double>(rows * outputs * arguments.hidden);
  return {{"generation", multiply_adds, [=] { FewRowsLinear(k, weight, {}); },
           [=] { MatrixProduct(k, weight.t()); }},
          {"generation, backward", 2 * multiply_adds,
           [=] { FewRowsLinearBackward(grad, k, weight, true, sum); },
           [=] {
             MatrixProduct(grad, weight);
             AddMatrixProduct(sum, grad.t(), k);
           }}};
}

std::string RowsOfTable(const Arguments& arguments, int64_t rows,
                        const std::vector<Comparison>& comparisons) {
  std::string text;
  for (const Comparison& comparison : comparisons) {
    std::vector<double> ours, library;
    comparison.ours();
    comparison.library();
    for (int round = 0; round < arguments.rounds; ++round) {
      ours.push_back(Milliseconds(comparison.ours));
      library.push_back(Milliseconds(comparison.library));
    }
    const double our_time = QuartilesOf(ours).median, library_time = QuartilesOf(library).median;
    const auto rate = [&](double time) { return 2e-6 * comparison.multiply_adds / time; };
    absl::StrAppendFormat(&text, "%5d %-24s %9.2f %9.1f %9.2f %9.1f %9.2f\n", rows, comparison.name,
                          our_time, rate(our_time), library_time, rate(library_time),
                          our_time / library_time);
  }
  return text;
}

absl::Status Run(const Arguments& arguments, const Communicator& world) {
  if (world.size() != 1) {
    return UsageError(absl::StrCat("bench_small_gemm was started on ", world.size(),
                                   " ranks, expected 1: start it without mpirun"));
  }
  const int unit = arguments.dtype == "bfloat16" ? 32 : 16;
  for (const auto& [name, value] : {std::pair("--width", arguments.width),
                                    {"--bottleneck", arguments.bottleneck},
                                    {"--hidden", arguments.hidden}}) {
    if (value % unit != 0)
      return UsageError(absl::StrCat(name, " is ", value, ": expected a multiple of ", unit));
  }
  const nlohmann::json machine = DescribeMachine(1, UseThreads(arguments.threads));
  if (arguments.dtype != "float32" && arguments.dtype != "bfloat16") {
    return UsageError(
        absl::StrCat("--dtype is '", arguments.dtype, "': expected float32 or bfloat16"));
  }
  const at::Tensor square = at::zeros({16, 16});
  const MatrixView view = MatrixView::Of(square);
  if (!FitsSmallGemm(view, view, view) || (arguments.dtype == "bfloat16" && !HasBf16Gemm())) {
    return UsageError(absl::StrCat("this processor lacks the instructions for ", arguments.dtype,
                                   " that these kernels are written for: AVX-512"));
  }
  std::string text = absl::StrFormat(
      "# %d tokens, width %d, bottleneck %d; generation from width %d; %s, medians of %d "
      "rounds\n%5s %-24s %9s %9s %9s %9s %9s\n",
      arguments.tokens, arguments.width, arguments.bottleneck, arguments.hidden, arguments.dtype,
      arguments.rounds, "rows", "product", "ours, ms", "GFLOP/s", "LibTorch", "GFLOP/s", "ratio");
  for (const int rows : arguments.group_rows)
    text += RowsOfTable(arguments, rows, HyperExpertProducts(arguments, rows));
  // Hypernetworks generate in float32.
  if (arguments.dtype == "bfloat16") return WriteStdout(MachineText(machine) + text);
  for (const int rows : arguments.generated_rows)
    text += RowsOfTable(arguments, rows, GenerationProducts(arguments, rows));
  return WriteStdout(MachineText(machine) + text);
}

int Main(int argc, char** argv) {
  CLI::App app("Times the matrix products of HyperExperts, beside LibTorch's.", "bench_small_gemm");
  Arguments arguments;
  app.add_option("--rows", arguments.group_rows, "Tokens of a HyperExpert")
      ->delimiter(',')
      ->check(Within(1, 65536))
      ->capture_default_str();
  app.add_option("--dtype", arguments.dtype, "float32 or bfloat16")->capture_default_str();
  app.add_option("--generated", arguments.generated_rows, "HyperExperts generated at once")
      ->delimiter(',')
      ->check(Within(1, 128))
      ->capture_default_str();
  AddNumber(app, "--tokens", &arguments.tokens, 1, "Tokens of a pass");
  AddNumber(app, "--width", &arguments.width, 16, "Width of the residual stream");
  AddNumber(app, "--bottleneck", &arguments.bottleneck, 16, "Inner width of HyperExperts");
  AddNumber(app, "--hidden", &arguments.hidden, 16, "Inner width of the hypernetwork");
  AddNumber(app, "--rounds", &arguments.rounds, 1, "Times that each product is made");
  AddNumber(app, "--threads", &arguments.threads, 0,
            "Threads; 0: the cores that the process may use");
  app.footer("Example:\n  build/bench_small_gemm --rows 64 --bottleneck 16");
  return RunBenchmark(argc, argv, app, [&arguments](std::shared_ptr<Communicator> world) {
    return Run(arguments, *world);
  });
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
