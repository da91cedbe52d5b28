#include "parallel/gradient_reducer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/gradient_norm.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

// Rank r of the world contributes r + 1 times these to each element.
constexpr double kDense = 1, kHyper = 10;
double ExpertConstant(int64_t expert) { return 100.0 * static_cast<double>(expert + 1); }

constexpr int64_t kDenseElements = 3, kHyperElements = 2, kExpertElements = 4;

// A model of one parameter a group, at one layout, with this rank's contributions as gradients.
struct Model {
  Model(int64_t num_experts, int degree)
      : mesh(ProcessMesh::Create(World(), degree)),
        experts(ExpertsOfRank(num_experts, degree, mesh.expert->rank())) {
    parameters.resize(3);
    const std::vector<std::vector<int64_t>> shapes = {
        {kDenseElements}, {kHyperElements}, {experts.size(), kExpertElements}};
    for (int group = 0; group < kNumParameterGroups; ++group) {
      parameters[group].name = "expert_{e}";
      parameters[group].group = static_cast<ParameterGroup>(group);
      parameters[group].value = at::full(shapes[group], 0.5, at::kDouble).set_requires_grad(true);
    }
    parameters[2].first_expert = experts.begin;
    buffers = MakeFlatBuffers(parameters);
    // Small buckets, so that parameters are cut.
    buckets = MakeGradientBuckets(buffers, mesh, /*bucket_bytes=*/16);
    const double share = World()->rank() + 1;
    buffers[0].gradients().fill_(kDense * share);
    buffers[1].gradients().fill_(kHyper * share);
    for (const NamedTensor& view : GlobalViews(parameters[2], parameters[2].value.grad())) {
      view.tensor.fill_(ExpertConstant(std::stoll(view.name.substr(7))) * share);
    }
  }

  ProcessMesh mesh;
  ExpertRange experts;
  std::vector<Parameter> parameters;
  std::vector<FlatBuffer> buffers;
  std::vector<GradientBucket> buckets;

  void Reduce() { GradientReducer(buffers, buckets, /*scatter=*/false).Finish(); }
  double Norm() { return GlobalGradientNorm(buffers, buckets, *mesh.world).item<double>(); }
};

// Sum of r + 1 over the ranks whose expert rank is `expert_rank`.
double SharesOfExpertData(int degree, int expert_rank) {
  double sum = 0;
  for (int rank = expert_rank; rank < World()->size(); rank += degree) sum += rank + 1;
  return sum;
}

double SharesOfWorld() { return SharesOfExpertData(1, 0); }

// Whether every gradient is the exact sum over the ranks that hold its parameter.
bool GradientsAreExact(const Model& model) {
  const auto all_are = [](const at::Tensor& values, double expected) {
    return values.eq(expected).all().item<bool>();
  };
  bool exact = all_are(model.buffers[0].gradients(), kDense * SharesOfWorld()) &&
               all_are(model.buffers[1].gradients(), kHyper * SharesOfWorld());
  const double shares = SharesOfExpertData(model.mesh.expert->size(), model.mesh.expert->rank());
  for (int64_t expert = model.experts.begin; expert < model.experts.end; ++expert) {
    exact =
        exact && all_are(model.parameters[2].value.grad().select(0, expert - model.experts.begin),
                         ExpertConstant(expert) * shares);
  }
  return exact;
}

// The norm of the reduced gradients of all parameters of the job, each counted once.
double TrueNorm(int64_t num_experts, int degree) {
  const auto square = [](double x) { return x * x; };
  double sum = kDenseElements * square(kDense * SharesOfWorld()) +
               kHyperElements * square(kHyper * SharesOfWorld());
  for (int expert_rank = 0; expert_rank < degree; ++expert_rank) {
    const ExpertRange range = ExpertsOfRank(num_experts, degree, expert_rank);
    for (int64_t expert = range.begin; expert < range.end; ++expert) {
      sum += kExpertElements *
             square(ExpertConstant(expert) * SharesOfExpertData(degree, expert_rank));
    }
  }
  return std::sqrt(sum);
}

bool NormIsExact(double norm, int64_t num_experts, int degree) {
  const double expected = TrueNorm(num_experts, degree);
  return std::abs(norm - expected) <= 1e-12 * expected;
}

TEST(GradientReducerTest, SumsOverTheGroupThatHoldsTheParameter) {
  for (int degree : Degrees()) {
    for (int64_t num_experts : {1, 2, 4, 6}) {
      Model model(num_experts, degree);
      model.Reduce();
      EXPECT_TRUE(GradientsAreExact(model)) << num_experts << " experts at degree " << degree;
    }
  }
}

TEST(GradientReducerTest, ComparisonSeesExpertsReducedOverTheWorld) {
  for (int degree : Degrees()) {
    if (degree == 1) continue;  // there the world is the right group
    Model model(/*num_experts=*/4, degree);
    for (const FlatBuffer& buffer : model.buffers) World()->AllReduceSum(buffer.gradients());
    EXPECT_FALSE(GradientsAreExact(model)) << "degree " << degree;
  }
}

TEST(GradientReducerTest, ComparisonSeesMeansAndMissingReductions) {
  if (World()->size() == 1) return;  // there a mean is a sum
  for (int degree : Degrees()) {
    Model model(/*num_experts=*/4, degree);
    model.Reduce();
    model.buffers[1].gradients().div_(World()->size());
    EXPECT_FALSE(GradientsAreExact(model));
    EXPECT_FALSE(GradientsAreExact(Model(4, degree)));
  }
}

TEST(GlobalGradientNormTest, CountsEveryParameterOnce) {
  for (int degree : Degrees()) {
    for (int64_t num_experts : {1, 2, 4, 6}) {
      Model model(num_experts, degree);
      model.Reduce();
      const double norm = model.Norm();
      EXPECT_TRUE(NormIsExact(norm, num_experts, degree))
          << num_experts << " experts at degree " << degree;
    }
  }
}

TEST(GlobalGradientNormTest, ComparisonSeesAShardCountedTwice) {
  for (int degree : Degrees()) {
    Model model(/*num_experts=*/6, degree);
    model.Reduce();
    if (degree > 1) {
      // Replicated parameters counted on every rank of the expert group, and experts of this rank
      // alone.
      const at::Tensor squares = at::full({1}, 0.0, at::kDouble);
      for (const FlatBuffer& buffer : model.buffers)
        squares.add_(buffer.gradients().square().sum());
      EXPECT_FALSE(NormIsExact(std::sqrt(squares.item<double>()), 6, degree));
      model.mesh.expert->AllReduceSum(squares);
      EXPECT_FALSE(NormIsExact(std::sqrt(squares.item<double>()), 6, degree));
    }
    if (World()->size() > 1) {
      // Every rank counts all that it holds.
      const at::Tensor squares = at::full({1}, 0.0, at::kDouble);
      for (const FlatBuffer& buffer : model.buffers)
        squares.add_(buffer.gradients().square().sum());
      World()->AllReduceSum(squares);
      EXPECT_FALSE(NormIsExact(std::sqrt(squares.item<double>()), 6, degree));
    }
  }
}

TEST(GradientReducerTest, ScatteredSumsAreExactWhereTheyAreOwned) {
  for (int degree : Degrees()) {
    Model whole(/*num_experts=*/6, degree), scattered(/*num_experts=*/6, degree);
    whole.Reduce();
    GradientReducer(scattered.buffers, scattered.buckets, /*scatter=*/true).Finish();
    for (const GradientBucket& bucket : scattered.buckets) {
      const RowRange own = bucket.OwnPart();
      const auto part = [&](const Model& model) {
        return model.buffers[bucket.buffer].gradients().narrow(0, own.begin, own.size());
      };
      EXPECT_TRUE(part(scattered).equal(part(whole)));
    }
    EXPECT_EQ(scattered.Norm(), whole.Norm());
  }
}

// Backward itself starts the reductions, in the order of the buckets.
TEST(GradientReducerTest, StartsBucketsDuringBackward) {
  for (int degree : Degrees()) {
    Model model(/*num_experts=*/6, degree);
    GradientReducer reducer(model.buffers, model.buckets, /*scatter=*/false);
    // Twice as many times as ranks hold it: what a rank adds is known.
    for (int step = 0; step < 2; ++step) {
      for (FlatBuffer& buffer : model.buffers) buffer.ZeroGradients();
      at::Tensor loss = at::full({}, 0.0, at::kDouble);
      for (const Parameter& parameter : model.parameters) {
        if (parameter.group != ParameterGroup::kHyper) loss = loss + parameter.value.sum();
      }
      reducer.Arm();
      loss.backward();
      reducer.Finish();
      size_t hyper_buckets = 0;
      for (const GradientBucket& bucket : model.buckets) {
        const double ranks = bucket.group->size();
        const bool hyper = model.buffers[bucket.buffer].group() == ParameterGroup::kHyper;
        hyper_buckets += hyper ? 1 : 0;
        const at::Tensor sums = bucket.In(model.buffers[bucket.buffer].gradients());
        EXPECT_TRUE(sums.eq(hyper ? 0.0 : ranks).all().item<bool>());
      }
      EXPECT_GT(reducer.started_early(), 0);
      EXPECT_LE(reducer.started_early(), model.buckets.size() - hyper_buckets);
    }
  }
}

// A parameter that several recomputed blocks use is added to by each.
TEST(GradientReducerTest, WaitsForAllParametersOfABucketHoweverOftenOneIsAddedTo) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), 1);
  std::vector<Parameter> parameters(2);
  for (Parameter& parameter : parameters)
    parameter.value = at::full({1}, 0.5, at::kDouble).set_requires_grad(true);
  std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  const std::vector<GradientBucket> buckets = MakeGradientBuckets(buffers, mesh, 1024);
  ASSERT_EQ(buckets.size(), 1u);
  GradientReducer reducer(buffers, buckets, /*scatter=*/false);
  reducer.Arm();
  for (const int which : {0, 0, 1}) parameters[which].value.sum().backward();
  reducer.Finish();
  EXPECT_EQ(reducer.started_early(), 1u);
  EXPECT_EQ(parameters[0].value.grad().item<double>(), 2 * World()->size());
  EXPECT_EQ(parameters[1].value.grad().item<double>(), World()->size());
}

TEST(GradientReducerTest, TheClippedGradientsOfTheJobHaveTheNormAsked) {
  for (int degree : Degrees()) {
    Model model(/*num_experts=*/6, degree);
    model.Reduce();
    const auto scale = ClipScale(at::full({1}, model.Norm(), at::kDouble), 0.25).item<double>();
    for (const FlatBuffer& buffer : model.buffers) buffer.gradients().mul_(scale);
    EXPECT_NEAR(model.Norm(), 0.25, 1e-13);
  }
}

TEST(ProcessMeshMpiTest, ExpertIndexRunsFastest) {
  for (int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    EXPECT_EQ(mesh.expert->size(), degree);
    EXPECT_EQ(mesh.expert->rank(), World()->rank() % degree);
    EXPECT_EQ(mesh.expert_data->size(), World()->size() / degree);
    EXPECT_EQ(mesh.expert_data->rank(), World()->rank() / degree);
  }
}

TEST(ProcessMeshMpiTest, WrongDegreeListsTheRightOnes) {
  if (World()->size() != 4) return;
  try {
    ProcessMesh::Create(World(), 3);
    ADD_FAILURE();
  } catch (const c10::Error& error) {
    EXPECT_STREQ(
        error.what_without_backtrace(),
        "mesh.expert_parallel (3) must divide the number of ranks (4): set it to 1, 2 or 4");
  }
}

}  // namespace
}  // namespace hypermoe
