#include "parallel/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace hypermoe {
namespace {

// The formula at the top of parallel/adamw.h, one element at a time.
struct ReferenceElement {
  double value, first = 0, second = 0;
  void Step(double gradient, double learning_rate, double decay, int64_t t,
            const AdamWOptions& options) {
    value *= 1 - learning_rate * decay;
    first = options.beta1 * first + (1 - options.beta1) * gradient;
    second = options.beta2 * second + (1 - options.beta2) * gradient * gradient;
    const double corrected = second / (1 - std::pow(options.beta2, t));
    value -= learning_rate / (1 - std::pow(options.beta1, t)) * first /
             (std::sqrt(corrected) + options.epsilon);
  }
};

// A decayed and an undecayed parameter, of lengths that leave a tail behind every vector width.
std::vector<Parameter> TwoParameters(at::ScalarType dtype) {
  std::vector<Parameter> parameters(2);
  for (int i = 0; i < 2; ++i) {
    parameters[i].name = i == 0 ? "bias" : "weight";
    parameters[i].weight_decay = i == 1;
    parameters[i].value =
        at::arange(37 + 64 * i, at::kDouble).sin().to(dtype).set_requires_grad(true);
  }
  return parameters;
}

// Parameters of one rank with their optimizer.
struct Optimized {
  explicit Optimized(at::ScalarType dtype, AdamWOptions options = {}, int64_t bucket_bytes = 100)
      : parameters(TwoParameters(dtype)),
        buffers(MakeFlatBuffers(parameters)),
        mesh(ProcessMesh::Create(NewSelfCommunicator("world"), 1)),
        buckets(MakeGradientBuckets(buffers, mesh, bucket_bytes)),
        optimizer(buffers, buckets, options, /*sharded=*/false) {}
  std::vector<Parameter> parameters;
  std::vector<FlatBuffer> buffers;
  ProcessMesh mesh;
  std::vector<GradientBucket> buckets;
  AdamW optimizer;
};

double GradientAt(int64_t step, int64_t element) {
  return std::cos(0.7 * static_cast<double>(element) + static_cast<double>(step)) *
         std::pow(10.0, static_cast<double>(element % 7) - 3);
}

void FillGradients(const FlatBuffer& buffer, int64_t step) {
  at::Tensor gradients = at::empty({buffer.gradients().numel()}, at::kDouble);
  for (int64_t i = 0; i < gradients.numel(); ++i) {
    gradients.mutable_data_ptr<double>()[i] = GradientAt(step, i);
  }
  buffer.gradients().copy_(gradients);
}

// Largest |value - reference| after a few steps, relative to max(1, |reference|).
double ErrorAfterSteps(at::ScalarType dtype, const AdamWOptions& options) {
  Optimized model(dtype, options);
  const FlatBuffer& buffer = model.buffers[0];
  AdamW& optimizer = model.optimizer;
  std::vector<ReferenceElement> reference;
  const at::Tensor start = buffer.values().to(at::kDouble);
  for (int64_t i = 0; i < start.numel(); ++i) {
    reference.push_back({start.const_data_ptr<double>()[i]});
  }
  for (int64_t step = 1; step <= 6; ++step) {
    const double learning_rate = 1e-2 / static_cast<double>(step);
    FillGradients(buffer, step);
    optimizer.Step(learning_rate);
    for (int64_t i = 0; i < start.numel(); ++i) {
      const double decay = i < buffer.decayed_elements() ? options.weight_decay : 0;
      reference[i].Step(GradientAt(step, i), learning_rate, decay, step, options);
    }
  }
  EXPECT_EQ(optimizer.steps(), 6);
  double error = 0;
  const at::Tensor values = buffer.values().to(at::kDouble);
  const at::Tensor first = optimizer.State(0, AdamW::Moment::kFirst).to(at::kDouble);
  const at::Tensor second = optimizer.State(0, AdamW::Moment::kSecond).to(at::kDouble);
  const auto compare = [&error](double got, double want) {
    error = std::max(error, std::abs(got - want) / std::max(1.0, std::abs(want)));
  };
  for (int64_t i = 0; i < values.numel(); ++i) {
    compare(values.const_data_ptr<double>()[i], reference[i].value);
    compare(first.const_data_ptr<double>()[i], reference[i].first);
    compare(second.const_data_ptr<double>()[i], reference[i].second);
  }
  return error;
}

TEST(AdamWTest, FollowsTheFormulaInFloat64) {
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {}), 1e-12);
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {0.8, 0.999, 1e-6, 0.0}), 1e-12);
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {0.0, 0.0, 1e-3, 1.5}), 1e-12);
}

// First moments cancel: gradients of up to 1000 in turn positive and negative.
TEST(AdamWTest, FollowsTheFormulaInFloat32) { EXPECT_LE(ErrorAfterSteps(at::kFloat, {}), 5e-6); }

TEST(AdamWTest, MultipliesGradientsWithTheScale) {
  Optimized scaled(at::kDouble), plain(at::kDouble);
  for (int64_t step = 1; step <= 3; ++step) {
    FillGradients(scaled.buffers[0], step);
    scaled.optimizer.Step(1e-2, /*gradient_scale=*/at::full({1}, 0.25, at::kDouble));
    FillGradients(plain.buffers[0], step);
    plain.buffers[0].gradients().mul_(0.25);
    plain.optimizer.Step(1e-2);
  }
  EXPECT_TRUE(at::equal(scaled.buffers[0].values(), plain.buffers[0].values()));
}

// Whatever the gradients; and the step after it is the one that would have been taken.
TEST(AdamWTest, SkippedStepChangesNothing) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Optimized skipping(dtype), plain(dtype);
    const at::Tensor yes = at::full({1}, true, at::kBool), no = at::full({1}, false, at::kBool);
    for (int64_t step = 1; step <= 4; ++step) {
      const double bad = step % 2 == 0 ? std::numeric_limits<double>::quiet_NaN()
                                       : std::numeric_limits<double>::infinity();
      skipping.buffers[0].gradients().fill_(bad);
      skipping.optimizer.Step(1e-2, at::full({1}, bad, at::kDouble), yes);
      EXPECT_EQ(skipping.optimizer.steps(), step);
      skipping.optimizer.TakeBackStep();
      for (Optimized* model : {&skipping, &plain}) {
        FillGradients(model->buffers[0], step);
        model->optimizer.Step(1e-2, {}, model == &skipping ? no : at::Tensor());
      }
      EXPECT_EQ(skipping.optimizer.steps(), step);
      EXPECT_TRUE(at::equal(skipping.buffers[0].values(), plain.buffers[0].values()));
      for (const auto moment : {AdamW::Moment::kFirst, AdamW::Moment::kSecond}) {
        EXPECT_TRUE(
            at::equal(skipping.optimizer.State(0, moment), plain.optimizer.State(0, moment)));
      }
    }
  }
}

// What makes sharded and whole updates agree.
TEST(AdamWTest, BucketsDoNotChangeTheBits) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Optimized whole(dtype, {}, /*bucket_bytes=*/1 << 20);
    for (const int64_t bucket_bytes : {8, 24, 52, 100, 132}) {
      Optimized cut(dtype, {}, bucket_bytes);
      whole.buffers[0].values().copy_(cut.buffers[0].values());
      for (int64_t step = 1; step <= 3; ++step) {
        for (Optimized* model : {&whole, &cut}) {
          model->optimizer.set_steps(step - 1);
          if (step == 1) {
            for (const auto moment : {AdamW::Moment::kFirst, AdamW::Moment::kSecond})
              model->optimizer.State(0, moment).zero_();
          }
          FillGradients(model->buffers[0], step);
          model->optimizer.Step(1e-2);
        }
      }
      EXPECT_TRUE(at::equal(whole.buffers[0].values(), cut.buffers[0].values()))
          << bucket_bytes << " bytes a bucket";
    }
  }
}

TEST(AdamWTest, RestoredStateGoesOnBitForBit) {
  Optimized straight(at::kFloat), first(at::kFloat), second(at::kFloat);
  for (int64_t step = 1; step <= 5; ++step) {
    FillGradients(straight.buffers[0], step);
    straight.optimizer.Step(1e-2);
    if (step == 4) {
      second.buffers[0].values().copy_(first.buffers[0].values());
      for (const auto moment : {AdamW::Moment::kFirst, AdamW::Moment::kSecond}) {
        const at::Tensor moments = first.optimizer.State(0, moment);
        second.optimizer.SetState(0, moment, 0, moments.narrow(0, 0, 40));
        second.optimizer.SetState(0, moment, 40, moments.narrow(0, 40, moments.numel() - 40));
      }
      second.optimizer.set_steps(first.optimizer.steps());
    }
    Optimized& stopped = step < 4 ? first : second;
    FillGradients(stopped.buffers[0], step);
    stopped.optimizer.Step(1e-2);
  }
  EXPECT_TRUE(at::equal(straight.buffers[0].values(), second.buffers[0].values()));
}

}  // namespace
}  // namespace hypermoe
