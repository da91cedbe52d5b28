#include "model/weight_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <string>
#include <utility>

#include "model/hyper_init.h"

namespace hypermoe {
namespace {

using torch::autograd::variable_list;

// Tiles of one matrix, and what becomes of them.
constexpr int64_t kTileRows = WeightEncoder::kRows / 5, kTileColumns = WeightEncoder::kColumns / 5;
constexpr int64_t kPoolRows = 16, kPoolColumns = 6, kPooled = 24;
constexpr int64_t kSide = 8;
constexpr int64_t kHidden = 32;
static_assert(kTileRows == kPooled * kPoolRows && kTileColumns == kPooled * kPoolColumns &&
              kPooled == 3 * kSide);

// The part of a matrix that is read.
at::Tensor Read(const at::Tensor& matrix_FD) {
  return matrix_FD.narrow(0, 0, WeightEncoder::kRows).narrow(1, 0, WeightEncoder::kColumns);
}

// A channel's tiles times its kernel: [tiles].
at::Tensor Channel(const at::Tensor& read_FD, const at::Tensor& kernel_55) {
  const at::Tensor tiles_T25 = read_FD.view({kTileRows, 5, kTileColumns, 5})
                                   .permute({0, 2, 1, 3})
                                   .reshape({kTileRows * kTileColumns, 25});
  return at::mv(tiles_T25, kernel_55.reshape({25}));
}

// The embedding [128] of one expert from what is read of its matrices, both [F,D]: the plain
// network, with the channels last. `p`: weight and bias of each convolution.
at::Tensor EncodeOne(const at::Tensor& up_FD, const at::Tensor& down_FD, const variable_list& p,
                     bool relu) {
  const auto act = [relu](const at::Tensor& x) { return relu ? at::relu(x) : x; };
  const at::Tensor y_T2 =
      at::stack({Channel(up_FD, p[0].select(0, 0)), Channel(down_FD, p[0].select(0, 1))}, 1) + p[1];
  const at::Tensor z_TC = act(at::linear(y_T2, p[2].view({kHidden, 2}), p[3]));
  const at::Tensor pooled =
      z_TC.view({kPooled, kPoolRows, kPooled, kPoolColumns, kHidden}).mean({1, 3});
  const at::Tensor kernel_331C =
      p[4].view({kHidden, 3, 3}).permute({1, 2, 0}).reshape({3, 1, 3, kHidden});
  const at::Tensor coarse =
      (pooled.view({kSide, 3, kSide, 3, kHidden}) * kernel_331C).sum({1, 3}) + p[5];
  return act(at::linear(coarse, p[6].view({WeightEncoder::kWidth, kHidden}), p[7]))
      .flatten(0, 1)
      .mean(0);
}

class EncodeBackward final : public torch::autograd::Node {
 public:
  EncodeBackward(const at::Tensor& up_eDF, const at::Tensor& down_eFD,
                 const variable_list& parameters, bool relu)
      : up_eDF_(up_eDF.detach()), down_eFD_(down_eFD.detach()), relu_(relu) {
    for (const at::Tensor& parameter : parameters) parameters_.push_back(parameter.detach());
  }

 protected:
  // In the order of `inputs` in Encode.
  variable_list apply(variable_list&& gradients) override {
    const at::Tensor gradient_eE =
        gradients[0].defined() ? gradients[0] : input_metadata(0).zeros_like();
    variable_list result(2 + parameters_.size());
    const auto start = [&](size_t i, const at::Tensor& like) {
      if (task_should_compute_output(i)) result[i] = at::zeros_like(like);
    };
    start(0, up_eDF_);
    start(1, down_eFD_);
    for (size_t i = 0; i < parameters_.size(); ++i) start(2 + i, parameters_[i]);
    for (int64_t expert = 0; expert < up_eDF_.size(0); ++expert)
      AddGradients(expert, gradient_eE.select(0, expert), &result);
    return result;
  }

  void release_variables() override {
    up_eDF_ = down_eFD_ = at::Tensor();
    parameters_.clear();
  }

 private:
  // Computes the expert's embedding again, and its gradients.
  void AddGradients(int64_t expert, const at::Tensor& gradient_E, variable_list* result) const {
    const at::AutoGradMode enabled(true);
    variable_list inputs = {Read(up_eDF_.select(0, expert).t()).detach(),
                            Read(down_eFD_.select(0, expert)).detach()};
    for (const at::Tensor& parameter : parameters_) inputs.push_back(parameter.detach());
    variable_list leaves, sums;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!(*result)[i].defined()) continue;
      leaves.push_back(inputs[i].set_requires_grad(true));
      at::Tensor sum = (*result)[i];
      if (i < 2) sum = Read(i == 0 ? sum.select(0, expert).t() : sum.select(0, expert));
      sums.push_back(sum);
    }
    if (leaves.empty()) return;
    const at::Tensor embedding_E =
        EncodeOne(inputs[0], inputs[1], {inputs.begin() + 2, inputs.end()}, relu_);
    const variable_list gradients =
        torch::autograd::grad({embedding_E}, leaves, {gradient_E}, /*retain_graph=*/false);
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < sums.size(); ++i) sums[i].add_(gradients[i]);
  }

  at::Tensor up_eDF_, down_eFD_;
  variable_list parameters_;
  bool relu_;
};

}  // namespace

WeightEncoder::WeightEncoder(const HyperConfig& config, ParameterFactory& factory)
    : relu_(config.conv_act() == HyperConfig::relu),
      gradient_to_experts_(config.conv_grad_to_experts()) {
  const std::vector<std::vector<int64_t>> kernels = {
      {2, 1, 5, 5}, {kHidden, 2, 1, 1}, {kHidden, 1, 3, 3}, {kWidth, kHidden, 1, 1}};
  for (size_t n = 0; n < kernels.size(); ++n) {
    const std::vector<int64_t>& kernel = kernels[n];
    const std::string name = "hypermoe.weight_encoder." + std::to_string(n);
    const Init init = HyperInit::Convolution(kernel[1] * kernel[2] * kernel[3]);
    parameters_.push_back(factory.Make(name + ".weight", kernel, init, ParameterGroup::kHyper));
    parameters_.push_back(factory.Make(name + ".bias", {kernel[0]}, init, ParameterGroup::kHyper));
  }
}

at::Tensor WeightEncoder::Encode(const at::Tensor& up_eDF, const at::Tensor& down_eFD) const {
  const int64_t experts = up_eDF.size(0), width = up_eDF.size(1), inner = up_eDF.size(2);
  TORCH_CHECK(Reads(inner, width), "experts of inner width ", inner, " and width ", width,
              " cannot be encoded, expected ", kRows, " to ", 2 * kRows - 1, " and ", kColumns,
              " to ", 2 * kColumns - 1);
  at::Tensor embeddings_eE =
      at::zeros({experts, kWidth}, parameters_[0].options().requires_grad(false));
  {
    const at::NoGradGuard no_grad;
    for (int64_t expert = 0; expert < experts; ++expert) {
      embeddings_eE.select(0, expert).copy_(EncodeOne(Read(up_eDF.select(0, expert).t()),
                                                      Read(down_eFD.select(0, expert)), parameters_,
                                                      relu_));
    }
  }
  const auto matrix = [this](const at::Tensor& matrices) {
    return gradient_to_experts_ ? matrices : matrices.detach();
  };
  variable_list inputs = {matrix(up_eDF), matrix(down_eFD)};
  inputs.insert(inputs.end(), parameters_.begin(), parameters_.end());
  if (!torch::autograd::compute_requires_grad(inputs)) return embeddings_eE;
  const std::shared_ptr<torch::autograd::Node> node(
      new EncodeBackward(up_eDF, down_eFD, parameters_, relu_), torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::set_history(embeddings_eE, node);
  return embeddings_eE;
}

}  // namespace hypermoe
