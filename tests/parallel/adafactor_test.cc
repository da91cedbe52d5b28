#include "parallel/adafactor.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "tests/support/random_tensor.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

using testing::ElementsAre;

double RootMeanSquare(const std::vector<double>& numbers) {
  double sum = 0;
  for (const double number : numbers) sum += number * number;
  return std::sqrt(sum / static_cast<double>(numbers.size()));
}

std::vector<double> ElementsOf(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.detach().to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

// The formula at the top of parallel/adafactor.h for one tensor, one element at a time.
struct Reference {
  Reference(const at::Tensor& tensor, const AdafactorOptions& given)
      : options(given),
        value(ElementsOf(tensor)),
        full(value.size(), 0),
        factored(tensor.dim() == 2 && tensor.size(0) >= given.min_dim_size_to_factor &&
                 tensor.size(1) >= given.min_dim_size_to_factor),
        rows(factored ? tensor.size(0) : 0, 0),
        columns(factored ? tensor.size(1) : 0, 0) {}

  double Root(size_t i) const {
    if (!factored) return std::sqrt(full[i]);
    double mean = 0;
    for (const double row : rows) mean += row / static_cast<double>(rows.size());
    return std::sqrt(rows[i / columns.size()] * columns[i % columns.size()] / mean);
  }

  void Step(const std::vector<double>& gradient, double learning_rate, int64_t t) {
    const double beta = 1 - std::pow(static_cast<double>(t), -options.decay_rate);
    std::vector<double> of_rows(rows.size(), 0), of_columns(columns.size(), 0);
    for (size_t i = 0; i < value.size(); ++i) {
      const double square = gradient[i] * gradient[i] + options.epsilon1;
      full[i] = beta * full[i] + (1 - beta) * square;
      if (!factored) continue;
      of_rows[i / columns.size()] += square / static_cast<double>(columns.size());
      of_columns[i % columns.size()] += square / static_cast<double>(rows.size());
    }
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = beta * rows[i] + (1 - beta) * of_rows[i];
    for (size_t i = 0; i < columns.size(); ++i)
      columns[i] = beta * columns[i] + (1 - beta) * of_columns[i];
    std::vector<double> u(value.size());
    for (size_t i = 0; i < value.size(); ++i) u[i] = gradient[i] / Root(i);
    double step = learning_rate;
    if (options.clipping_threshold > 0)
      step /= std::max(1.0, RootMeanSquare(u) / options.clipping_threshold);
    if (options.multiply_by_parameter_scale)
      step *= std::max(RootMeanSquare(value), options.epsilon2);
    for (size_t i = 0; i < value.size(); ++i) value[i] -= step * u[i];
  }

  AdafactorOptions options;
  std::vector<double> value, full;
  bool factored;
  std::vector<double> rows, columns;
};

// Of min_dim_size_to_factor 5: matrices that are factored and that are not, a vector, a scalar, and
// two local experts of each; one kept as it is not named; one that does not change.
std::vector<Parameter> Parameters(at::ScalarType dtype) {
  std::vector<Parameter> parameters;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) -> Parameter& {
    Parameter parameter;
    parameter.name = name;
    parameter.value = Random(shape, name, dtype).mul_(0.1).set_requires_grad(true);
    if (name.find("{e}") != std::string::npos) {
      parameter.group = ParameterGroup::kExpert;
      parameter.first_expert = 3;
    }
    parameters.push_back(parameter);
    return parameters.back();
  };
  add("matrix", {7, 5}).weight_decay = true;  // which moves it to the front, and nothing else
  add("narrow", {9, 4});
  add("vector", {11});
  add("scalar", {});
  add("transposed", {6, 8}).named_transposed = true;
  add("zero", {5, 5}).value.detach().zero_();
  add("experts.expert_{e}.weight", {2, 5, 6}).weight_decay = true;
  add("experts.expert_{e}.transposed", {2, 5, 9}).named_transposed = true;
  add("experts.expert_{e}.bias", {2, 6});
  Parameter& frozen = add("frozen", {6, 6});
  frozen.value.set_requires_grad(false);
  frozen.frozen = true;
  return parameters;
}

// Parameters of one rank with their optimizer.
struct Optimized {
  explicit Optimized(at::ScalarType dtype, const AdafactorOptions& options)
      : parameters(Parameters(dtype)),
        buffers(MakeFlatBuffers(parameters)),
        optimizer(buffers, options) {}

  // Gradients of a size of their own in every step, and far apart within a tensor.
  void FillGradients(int64_t step) {
    const at::NoGradGuard no_grad;
    for (Parameter& parameter : parameters) {
      if (parameter.frozen) continue;
      const std::string name = parameter.name + std::to_string(step);
      const at::Tensor gradient = Random(parameter.value.sizes(), name);
      parameter.value.mutable_grad().copy_(gradient.mul_(gradient.abs()).mul_(std::pow(3.0, step)));
    }
  }
  void Step(int64_t step) {
    FillGradients(step);
    optimizer.Step(0.05 / static_cast<double>(step));
  }
  // Values and state, by name.
  std::map<std::string, at::Tensor> All() const {
    std::map<std::string, at::Tensor> all;
    for (const Parameter& parameter : parameters) {
      for (const NamedTensor& view : GlobalViews(parameter, parameter.value))
        all[view.name] = view.tensor.clone();
    }
    for (size_t b = 0; b < buffers.size(); ++b) {
      for (size_t kind = 0; kind < optimizer.kinds().size(); ++kind) {
        for (const NamedTensor& view : optimizer.StateViews(b, kind, optimizer.State(b, kind)))
          all[optimizer.kinds()[kind] + "." + view.name] = view.tensor.clone();
      }
    }
    return all;
  }

  std::vector<Parameter> parameters;
  std::vector<FlatBuffer> buffers;
  Adafactor optimizer;
};

void ExpectSameBits(const Optimized& actual, const Optimized& expected, const std::string& what) {
  const auto wanted = expected.All();
  for (const auto& [name, tensor] : actual.All())
    EXPECT_TRUE(at::equal(tensor, wanted.at(name))) << name << ", " << what;
}

AdafactorOptions Small() {
  AdafactorOptions options;
  options.min_dim_size_to_factor = 5;
  return options;
}

double Error(const at::Tensor& actual, const std::vector<double>& expected) {
  const std::vector<double> got = ElementsOf(actual);
  EXPECT_EQ(got.size(), expected.size());
  double error = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error = std::max(error, std::abs(got[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  return error / largest;
}

// The largest relative error of any value or state after a few steps.
double ErrorAfterSteps(at::ScalarType dtype, const AdafactorOptions& options) {
  Optimized model(dtype, options);
  std::map<std::string, Reference> references;
  for (const auto& [name, value] : model.All()) {
    if (name.find("moment") == std::string::npos)
      references.emplace(name, Reference(value, options));
  }
  for (int64_t step = 1; step <= 5; ++step) {
    model.Step(step);
    for (const Parameter& parameter : model.parameters) {
      if (parameter.frozen) continue;
      for (const NamedTensor& gradient : GlobalViews(parameter, parameter.value.grad()))
        references.at(gradient.name)
            .Step(ElementsOf(gradient.tensor), 0.05 / static_cast<double>(step), step);
    }
  }
  EXPECT_EQ(model.optimizer.steps(), 5);
  const auto all = model.All();
  double error = 0;
  size_t tensors = 0;
  for (const auto& [name, reference] : references) {
    const auto compare = [&](const std::string& prefix, const std::vector<double>& expected) {
      error = std::max(error, Error(all.at(prefix + name), expected));
      ++tensors;
    };
    compare("", reference.value);
    if (name == "frozen") continue;
    if (reference.factored) {
      compare("row_moment.", reference.rows);
      compare("column_moment.", reference.columns);
    } else {
      compare("second_moment.", reference.full);
    }
  }
  EXPECT_EQ(tensors, all.size());  // and no state beside
  return error;
}

TEST(AdafactorTest, FollowsTheFormulaInFloat64) {
  EXPECT_LE(ErrorAfterSteps(at::kDouble, Small()), 1e-12);
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {0.5, 1e-4, 0.3, 0.2, 6, true}), 1e-12);
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {1.0, 1e-30, 1e-3, 0, 1000, false}), 1e-12);
}

TEST(AdafactorTest, FollowsTheFormulaInFloat32) {
  EXPECT_LE(ErrorAfterSteps(at::kFloat, Small()), 2e-6);
}

TEST(AdafactorTest, FactorsFrom128Rows) {
  EXPECT_TRUE(IsFactored({128, 4000}, AdafactorOptions().min_dim_size_to_factor));
  EXPECT_FALSE(IsFactored({127, 4000}, AdafactorOptions().min_dim_size_to_factor));
  EXPECT_FALSE(IsFactored({4000, 127}, AdafactorOptions().min_dim_size_to_factor));
  EXPECT_FALSE(IsFactored({4000}, AdafactorOptions().min_dim_size_to_factor));
}

// Of the shape of the named tensor, each expert's by itself; frozen ones have none.
TEST(AdafactorTest, NamesItsState) {
  const auto all = Optimized(at::kFloat, Small()).All();
  EXPECT_THAT(all.at("row_moment.matrix").sizes(), ElementsAre(7));
  EXPECT_THAT(all.at("column_moment.matrix").sizes(), ElementsAre(5));
  EXPECT_THAT(all.at("row_moment.transposed").sizes(), ElementsAre(8));
  EXPECT_THAT(all.at("column_moment.transposed").sizes(), ElementsAre(6));
  EXPECT_THAT(all.at("row_moment.experts.expert_4.weight").sizes(), ElementsAre(5));
  EXPECT_THAT(all.at("column_moment.experts.expert_3.transposed").sizes(), ElementsAre(5));
  EXPECT_THAT(all.at("second_moment.experts.expert_3.bias").sizes(), ElementsAre(6));
  EXPECT_THAT(all.at("second_moment.narrow").sizes(), ElementsAre(9, 4));
  EXPECT_EQ(all.count("second_moment.matrix") + all.count("row_moment.narrow"), 0u);
  for (const char* kind : {"row_moment.", "column_moment.", "second_moment."})
    EXPECT_EQ(all.count(std::string(kind) + "frozen"), 0u);
}

// Clipping of the global norm.
TEST(AdafactorTest, MultipliesGradientsWithTheScale) {
  Optimized scaled(at::kFloat, Small()), plain(at::kFloat, Small());
  for (int64_t step = 1; step <= 3; ++step) {
    scaled.FillGradients(step);
    scaled.optimizer.Step(1e-2, /*gradient_scale=*/at::full({1}, 0.25, at::kDouble));
    plain.FillGradients(step);
    for (const FlatBuffer& buffer : plain.buffers) buffer.gradients().mul_(0.25);
    plain.optimizer.Step(1e-2);
  }
  ExpectSameBits(scaled, plain, "scaled");
}

// Whatever the gradients; and the step after it is the one that would have been taken.
TEST(AdafactorTest, SkippedStepChangesNothing) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Optimized skipping(dtype, Small()), plain(dtype, Small());
    const at::Tensor yes = at::full({1}, true, at::kBool), no = at::full({1}, false, at::kBool);
    for (int64_t step = 1; step <= 3; ++step) {
      const double bad = step % 2 == 0 ? std::numeric_limits<double>::quiet_NaN()
                                       : std::numeric_limits<double>::infinity();
      for (const FlatBuffer& buffer : skipping.buffers) buffer.gradients().fill_(bad);
      skipping.optimizer.Step(1e-2, at::full({1}, bad, at::kDouble), yes);
      EXPECT_EQ(skipping.optimizer.steps(), step);
      skipping.optimizer.TakeBackStep();
      ExpectSameBits(skipping, plain, "skipped");
      for (Optimized* model : {&skipping, &plain}) {
        model->FillGradients(step);
        model->optimizer.Step(1e-2, {}, model == &skipping ? no : at::Tensor());
      }
      ExpectSameBits(skipping, plain, "after a step");
    }
    EXPECT_EQ(skipping.optimizer.steps(), 3);
  }
}

// A row without gradient keeps its values, however large the others' gradients.
TEST(AdafactorTest, GradientsOfAnySizeGiveFiniteUpdates) {
  for (const double size : {1e-18, 1e-10, 1.0, 1e10, 1e16}) {
    Optimized model(at::kFloat, Small());
    const auto before = model.All();
    for (int64_t step = 1; step <= 2; ++step) {
      model.FillGradients(step);
      for (const FlatBuffer& buffer : model.buffers) buffer.gradients().mul_(size);
      model.parameters[0].value.grad().select(0, 2).zero_();
      model.optimizer.Step(1e-2);
    }
    const auto after = model.All();
    EXPECT_TRUE(at::equal(after.at("matrix").select(0, 2), before.at("matrix").select(0, 2)));
    for (const auto& [name, tensor] : after) {
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name << ", gradients of " << size;
    }
    EXPECT_GT((after.at("matrix") - before.at("matrix")).abs().max().item<double>(),
              size < 1e-15 ? 0 : 1e-4);
  }
}

// A square beyond float32 is forgotten like any other moment, also where no update is clipped.
TEST(AdafactorTest, AnOverflowOfAMomentIsForgotten) {
  AdafactorOptions options = Small();
  options.clipping_threshold = 0;
  Optimized run(at::kFloat, options);
  run.FillGradients(1);
  {
    const at::NoGradGuard no_grad;
    for (Parameter& parameter : run.parameters) {
      if (!parameter.frozen) parameter.value.mutable_grad().flatten()[0] = 1e25;
    }
  }
  run.optimizer.Step(1e-30);
  double largest = 0;
  for (int64_t step = 2; step <= 40; ++step) {
    run.FillGradients(1);
    run.optimizer.Step(1e-30);
    largest = 0;
    for (const auto& [name, tensor] : run.All()) {
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name << ", step " << step;
      if (name.find("moment") != std::string::npos && tensor.numel() > 0)
        largest = std::max(largest, tensor.max().item<double>());
    }
  }
  EXPECT_LT(largest, 1e32);
  EXPECT_GT(largest, 1e25);
}

TEST(AdafactorTest, RestoredStateGoesOnBitForBit) {
  Optimized straight(at::kFloat, Small()), stopped(at::kFloat, Small()),
      restored(at::kFloat, Small());
  for (int64_t step = 1; step <= 5; ++step) {
    straight.Step(step);
    if (step == 4) {
      for (size_t b = 0; b < stopped.buffers.size(); ++b) {
        restored.buffers[b].values().copy_(stopped.buffers[b].values());
        for (size_t kind = 0; kind < stopped.optimizer.kinds().size(); ++kind) {
          const at::Tensor state = stopped.optimizer.State(b, kind);
          const int64_t half = state.numel() / 2;
          restored.optimizer.SetState(b, kind, 0, state.narrow(0, 0, half));
          restored.optimizer.SetState(b, kind, half, state.slice(0, half));
        }
      }
      restored.optimizer.set_steps(stopped.optimizer.steps());
    }
    (step < 4 ? stopped : restored).Step(step);
  }
  ExpectSameBits(restored, straight, "restored");
}

// Ranks that hold copies may have different numbers of threads. Of sizes that are cut.
TEST(AdafactorTest, ThreadsDoNotChangeTheBits) {
  const auto trained = [](int threads) {
    const ThreadsScope scope(threads);
    std::vector<Parameter> parameters(3);
    const std::vector<std::vector<int64_t>> shapes = {{40001, 131}, {3, 257, 389}, {50021}};
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].name = i == 1 ? "expert_{e}" : "parameter" + std::to_string(i);
      parameters[i].group = i == 1 ? ParameterGroup::kExpert : ParameterGroup::kDense;
      parameters[i].value =
          Random(shapes[i], parameters[i].name, at::kFloat).set_requires_grad(true);
    }
    std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
    Adafactor optimizer(buffers, {});
    for (int64_t step = 1; step <= 2; ++step) {
      for (const FlatBuffer& buffer : buffers) {
        buffer.gradients().copy_(
            Random(buffer.gradients().sizes(), "gradient" + std::to_string(step), at::kFloat));
      }
      optimizer.Step(1e-2);
    }
    std::vector<at::Tensor> result;
    for (size_t b = 0; b < buffers.size(); ++b) {
      result.push_back(buffers[b].values());
      for (size_t kind = 0; kind < 3; ++kind) result.push_back(optimizer.State(b, kind));
    }
    return result;
  };
  const std::vector<at::Tensor> alone = trained(1);
  for (const int threads : {2, 3, 7}) {
    const std::vector<at::Tensor> together = trained(threads);
    for (size_t i = 0; i < alone.size(); ++i)
      EXPECT_TRUE(at::equal(together[i], alone[i])) << threads << " threads, tensor " << i;
  }
}

}  // namespace
}  // namespace hypermoe
