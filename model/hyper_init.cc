#include "model/hyper_init.h"

#include <cmath>

namespace hypermoe {
namespace {

// The authors' factor on the variance-preserving bounds.
constexpr double kOffSmall = 1e-3;

// What makes a sum of fan_in products with inputs of mean square 1 have variance 1.
double UnitBound(double fan_in) { return std::sqrt(3.0 / fan_in); }

// A sum of n terms with uniform weights in +-1/sqrt(n) and the same for the bias has variance (v +
// 1/n) / 3 for inputs of mean square v; relu halves it.
double LinearMeanSquare(double mean_square, double fan_in) {
  return (mean_square + 1.0 / fan_in) / 3.0;
}

}  // namespace

double HyperInit::NormalStd() const {
  switch (config_.init()) {
    case HyperConfig::normal_1e2:
      return 1e-2;
    case HyperConfig::normal_2e2:
      return 2e-2;
    default:
      return 0;
  }
}

Init HyperInit::Embedding() const {
  return Init::Normal(config_.init() == HyperConfig::normal_2e2 ? NormalStd() : 1.0);
}

Init HyperInit::LinearWeight(int64_t fan_in) const {
  return NormalStd() > 0 ? Init::Normal(NormalStd())
                         : Init::Uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

Init HyperInit::LinearBias(int64_t fan_in) const {
  return NormalStd() > 0 ? Init::Constant(0) : LinearWeight(fan_in);
}

Init HyperInit::Convolution(int64_t fan_in) {
  return Init::Uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

double HyperInit::SelectionMeanSquare(int64_t num_experts, int64_t top_k) const {
  const auto members = static_cast<double>(
      config_.condition() == HyperConfig::selected ? top_k : num_experts - top_k);
  const bool sum = config_.agg() == HyperConfig::sum;
  if (members == 0) return 0;
  if (config_.condition() != HyperConfig::weights) return sum ? members : 1 / members;
  // Experts' matrices are small beside the first bias, and of random sign, so that all embeddings
  // are much the same, and a mean over places is what every place has.
  const double act = config_.conv_act() == HyperConfig::relu ? 0.5 : 1;
  const double fine = act * LinearMeanSquare(LinearMeanSquare(0, 25), 2);
  const double embedding = act * LinearMeanSquare(LinearMeanSquare(fine, 9), 32);
  return sum ? members * members * embedding : embedding;
}

double HyperInit::HiddenMeanSquare(int64_t num_experts, int64_t top_k, int64_t width) const {
  if (config_.k_norm() == HyperConfig::layernorm) return 1;
  const double l = config_.layer_embedding_dim();
  double p = 1, p_width = static_cast<double>(width);  // condition hidden: a normalised input
  if (config_.condition() != HyperConfig::hidden) {
    const double mlp_hidden =
        LinearMeanSquare(SelectionMeanSquare(num_experts, top_k), config_.expert_embedding_dim()) /
        2.0;
    p = LinearMeanSquare(mlp_hidden, config_.mlp_hidden_dim());
    p_width = config_.selection_embedding_dim();
  }
  const double projected = LinearMeanSquare((p_width * p + l) / (p_width + l), p_width + l);
  return config_.k_act() == HyperConfig::relu ? projected / 2.0 : projected;
}

Init HyperInit::Down(int64_t num_experts, int64_t top_k, int64_t width) const {
  if (NormalStd() > 0) return Init::Normal(NormalStd());
  const auto inputs = static_cast<double>(width) * config_.hidden_dim();
  if (config_.init() == HyperConfig::off_small) return Init::Uniform(kOffSmall * UnitBound(inputs));
  // Entries of Down with variance 1 / width, so that x Down keeps the scale of x.
  return Init::Uniform(UnitBound(inputs * HiddenMeanSquare(num_experts, top_k, width)));
}

Init HyperInit::Up() const {
  if (NormalStd() > 0) return Init::Normal(NormalStd());
  if (config_.init() == HyperConfig::zero_u) return Init::Constant(0);
  return Init::Uniform(
      kOffSmall * UnitBound(static_cast<double>(config_.bottleneck_dim()) * config_.hidden_dim()));
}

Init HyperInit::DownOffset() const {
  if (NormalStd() > 0) return Init::Normal(NormalStd());
  const double bound = UnitBound(config_.hidden_dim());
  return Init::Uniform(config_.init() == HyperConfig::off_small ? kOffSmall * bound : bound);
}

Init HyperInit::UpOffset() const {
  return config_.init() == HyperConfig::zero_u ? Init::Constant(0) : DownOffset();
}

}  // namespace hypermoe
