#include "kernels/relative_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/keyed_dropout.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

// The first distances of the buckets that have several, as T5's own code gives them.
TEST(RelativePositionBucketsTest, AreThoseOfT5) {
  constexpr int64_t kPositions = 300;
  for (const bool bidirectional : {true, false}) {
    const int64_t exact = bidirectional ? 8 : 16;
    std::vector<int64_t> firsts = {12, 16, 23, 32, 46, 64, 91};
    if (!bidirectional) firsts = {19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113};
    const auto bucket_of = [&](int64_t distance) {
      const auto above = std::upper_bound(firsts.begin(), firsts.end(), distance);
      return std::min(distance, exact) + (above - firsts.begin());
    };
    const at::Tensor buckets =
        RelativePositionBuckets(kPositions, kPositions, 0, bidirectional, 32, 128);
    ASSERT_EQ(buckets.sizes(), at::IntArrayRef({kPositions, kPositions}));
    ASSERT_EQ(buckets.scalar_type(), at::kLong);
    const auto bucket = buckets.accessor<int64_t, 2>();
    for (int64_t s = 0; s < kPositions; ++s) {
      for (int64_t l = 0; l < kPositions; ++l) {
        int64_t expected = 0;
        if (l <= s) expected = bucket_of(s - l);
        if (l > s && bidirectional) expected = 16 + bucket_of(l - s);
        ASSERT_EQ(bucket[s][l], expected) << s << ", " << l;
      }
    }
  }
}

// T5's code again, by LibTorch's operators, for other numbers and far distances.
TEST(RelativePositionBucketsTest, AreThoseOfTheFormula) {
  for (const auto& [buckets, max_distance, bidirectional] :
       {std::tuple(int64_t{32}, int64_t{128}, true),
        {32, 128, false},
        {20, 500, true},
        {7, 40, false},
        {64, 1000, false},
        {4, 3, true}}) {
    const at::Tensor r = at::arange(1500).unsqueeze(0) - at::arange(200, 300).unsqueeze(1);
    const int64_t half = bidirectional ? buckets / 2 : buckets, exact = half / 2;
    const at::Tensor n = bidirectional ? r.abs() : r.neg().clamp_min(0);
    const at::Tensor beyond =
        (at::log(n.to(at::kFloat) / exact) /
         std::log(static_cast<double>(max_distance) / static_cast<double>(exact)) * (half - exact))
            .to(at::kLong)
            .add(exact)
            .clamp_max(half - 1);
    at::Tensor expected = at::where(n < exact, n, beyond);
    if (bidirectional) expected = expected + (r > 0).to(at::kLong) * half;
    EXPECT_TRUE(RelativePositionBuckets(100, 1500, 200, bidirectional, buckets, max_distance)
                    .equal(expected))
        << buckets << ", " << max_distance;
  }
}

TEST(RelativePositionBucketsTest, ImpossibleNumbersAreRefused) {
  EXPECT_EQ(RelativePositionBuckets(0, 4, 0, true, 32, 128).sizes(), at::IntArrayRef({0, 4}));
  EXPECT_EQ(RelativePositionBuckets(4, 0, 0, true, 32, 128).sizes(), at::IntArrayRef({4, 0}));
  EXPECT_THROW(RelativePositionBuckets(4, 4, 0, true, 2, 128), c10::Error);
  EXPECT_THROW(RelativePositionBuckets(4, 4, 0, false, 1, 128), c10::Error);
  EXPECT_THROW(RelativePositionBuckets(4, 4, 0, false, 32, 16), c10::Error);
}

constexpr int64_t kRows = 3, kHeads = 2, kKeys = 7, kWidth = 4;

struct Case {
  std::string name;
  int64_t queries;
  bool bias, learned, padded, causal;
  double dropout;
};
void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

const std::vector<Case> kCases = {
    {"nothing", 7, false, false, false, false, 0},
    {"encoder", 7, true, true, true, false, 0},
    {"encoder_fixed", 7, true, false, true, false, 0},
    {"encoder_dropout", 7, true, true, true, false, 0.3},
    {"decoder", 7, true, true, false, true, 0},
    {"decoder_fixed", 7, true, false, false, true, 0},
    {"decoder_padded", 7, true, true, true, true, 0},
    {"decoder_padded_fixed", 7, true, false, true, true, 0.3},
    {"decoder_last_two", 2, true, false, true, true, 0},
    {"decoder_one", 1, true, false, false, true, 0},
    {"cross", 5, false, false, true, false, 0},
    {"cross_dropout", 5, false, false, true, false, 0.3},
    {"cross_more_queries", 9, false, false, true, false, 0},
};

// Rows of all keys, of some, and of none.
at::Tensor Allowed() {
  const at::Tensor allowed = at::ones({kRows, kKeys}, at::kBool);
  allowed[1].narrow(0, 4, 3).fill_(false);
  allowed[1].narrow(0, 1, 1).fill_(false);
  allowed[2].fill_(false);
  return allowed;
}

// q, k, v and, in cases that have one, the bias.
std::vector<at::Tensor> Inputs(const Case& test_case, const at::TensorOptions& options) {
  std::vector<at::Tensor> in = {Random({kRows, kHeads, test_case.queries, kWidth}, "q"),
                                Random({kRows, kHeads, kKeys, kWidth}, "k"),
                                Random({kRows, kHeads, kKeys, kWidth}, "v")};
  if (test_case.bias)
    in.push_back(Random({test_case.queries, kKeys, kHeads}, "bias").permute({2, 0, 1}));
  for (size_t i = 0; i < in.size(); ++i) {
    in[i] = in[i].to(options).set_requires_grad(i < 3 || test_case.learned);
  }
  return in;
}

AttentionDropout DropoutOf(const Case& test_case, at::Device device) {
  return {test_case.dropout, RandomKey{9, 0}.Derive("attention"),
          at::tensor({5, 0, 9}, at::kLong).to(device)};
}

at::Tensor Attend(const Case& test_case, const std::vector<at::Tensor>& in) {
  AttentionBias bias;
  bias.causal = test_case.causal;
  if (test_case.bias) bias.bias_HSL = in[3];
  if (test_case.padded) bias.allowed_BL = Allowed().to(in[0].device());
  return RelativeAttention(in[0], in[1], in[2], bias, DropoutOf(test_case, in[0].device()));
}

// T5's own: the lowest number is added to the scores of masked keys.
at::Tensor Definition(const Case& test_case, const std::vector<at::Tensor>& in) {
  at::Tensor scores = at::matmul(in[0], in[1].transpose(2, 3));
  if (test_case.bias) scores = scores + in[3];
  const at::Tensor allowed = Allowed();
  const at::Tensor added = at::zeros({kRows, 1, test_case.queries, kKeys}, at::kDouble);
  for (int64_t b = 0; b < kRows; ++b) {
    for (int64_t s = 0; s < test_case.queries; ++s) {
      for (int64_t l = 0; l < kKeys; ++l) {
        const bool future = test_case.causal && l > kKeys - test_case.queries + s;
        const bool padding = test_case.padded && !allowed[b][l].item<bool>();
        if (future || padding) added[b][0][s][l].fill_(std::numeric_limits<double>::lowest());
      }
    }
  }
  const AttentionDropout dropout = DropoutOf(test_case, at::kCPU);
  const at::Tensor probs = KeyedDropout(at::softmax(scores + added, -1), dropout.probability,
                                        dropout.key, dropout.row_ids_B);
  return at::matmul(probs, in[2]);
}

class RelativeAttentionTest : public TestCaseInPlace<Case> {};

TEST_P(RelativeAttentionTest, EqualsTheDefinitionWithItsGradients) {
  const TestPlace& place = Place();
  const double tolerance = place.dtype == at::kDouble  ? 1e-12
                           : place.dtype == at::kFloat ? 1e-5
                                                       : 4e-2;
  const std::vector<at::Tensor> in = Inputs(Given(), place.Options());
  std::vector<at::Tensor> exact;
  for (const at::Tensor& input : in) {
    exact.push_back(input.detach().cpu().to(at::kDouble, false, /*copy=*/true));
    exact.back().set_requires_grad(input.requires_grad());
  }
  const at::Tensor y = Attend(Given(), in), expected = Definition(Given(), exact);
  ASSERT_EQ(y.scalar_type(), place.dtype);
  ASSERT_EQ(y.sizes(), expected.sizes());
  EXPECT_LE(RelativeError(y.detach(), expected.detach()), tolerance);
  {
    const at::NoGradGuard no_grad;  // the fused kernel
    EXPECT_LE(RelativeError(Attend(Given(), in), expected), tolerance);
  }
  const at::Tensor grad = place.Put(Random(y.sizes(), "grad"));
  y.backward(grad);
  expected.backward(grad.cpu().to(at::kDouble));
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].requires_grad()) continue;
    EXPECT_LE(RelativeError(in[i].grad(), exact[i].grad()), tolerance) << "input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RelativeAttentionTest,
                         testing::Combine(testing::ValuesIn(kCases), AllPlaces()),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "_" +
                                  NameOf(std::get<1>(info.param));
                         });

TEST(RelativeAttentionFormTest, GradientsMatchDifferences) {
  for (const Case& test_case : kCases) {
    // Scores of masked keys alone do not count, but have the gradient that T5 gives them.
    if (test_case.padded) continue;
    for (const double probability : {0.0, 0.3}) {
      Case dropped = test_case;
      dropped.dropout = probability;
      EXPECT_TRUE(GradientsMatchDifferences(
          [&](const std::vector<at::Tensor>& in) { return Attend(dropped, in); },
          Inputs(dropped, at::kDouble)))
          << test_case.name << ", dropout " << probability;
    }
  }
}

TEST(RelativeAttentionFormTest, MaskedKeysAreAsAbsent) {
  const std::vector<at::Tensor> in = Inputs(kCases[1], at::kDouble);
  AttentionBias bias{in[3], at::ones({kRows, kKeys}, at::kBool)};
  bias.allowed_BL.narrow(1, 5, 2).fill_(false);
  const at::Tensor masked = RelativeAttention(in[0], in[1], in[2], bias, {});
  const at::Tensor absent = RelativeAttention(in[0], in[1].narrow(2, 0, 5), in[2].narrow(2, 0, 5),
                                              {in[3].narrow(2, 0, 5), {}}, {});
  EXPECT_TRUE(masked.allclose(absent, 1e-12, 1e-12));
  // Of masked keys alone, the mean.
  bias.allowed_BL.fill_(false);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::NoGradGuard no_grad;
    for (const bool causal : {false, true}) {
      bias.causal = causal;
      const at::Tensor v = in[2].to(dtype);
      const at::Tensor y = RelativeAttention(in[0].to(dtype), in[1].to(dtype), v, bias, {});
      EXPECT_LE(RelativeError(y, v.to(at::kDouble).mean(2, true).expand_as(y)), 1e-2) << dtype;
    }
  }
}

TEST(RelativeAttentionFormTest, DropoutFollowsTheGlobalRow) {
  const Case& test_case = kCases[3];
  const std::vector<at::Tensor> in = Inputs(test_case, at::kDouble);
  const AttentionDropout whole{0.3, RandomKey{9, 0}, at::tensor({5, 0, 9}, at::kLong)};
  const AttentionDropout last{0.3, RandomKey{9, 0}, at::tensor({9}, at::kLong)};
  const at::Tensor y = RelativeAttention(in[0], in[1], in[2], {in[3], {}}, whole);
  const at::Tensor y_last = RelativeAttention(in[0].narrow(0, 2, 1), in[1].narrow(0, 2, 1),
                                              in[2].narrow(0, 2, 1), {in[3], {}}, last);
  EXPECT_TRUE(y_last.allclose(y.narrow(0, 2, 1), 1e-12, 1e-12));
}

TEST(RelativeAttentionFormTest, NoRowsKeepTheGraph) {
  const at::Tensor empty = Leaf({0, kHeads, kKeys, kWidth}, "empty"),
                   bias_HSL = Leaf({kHeads, kKeys, kKeys}, "bias");
  const at::Tensor allowed_BL = at::empty({0, kKeys}, at::kBool);
  for (const double probability : {0.0, 0.3}) {
    const AttentionDropout dropout{probability, RandomKey{9, 0}, at::empty({0}, at::kLong)};
    const at::Tensor y =
        RelativeAttention(empty, empty, empty, {bias_HSL, allowed_BL, true}, dropout);
    EXPECT_EQ(y.sizes(), empty.sizes());
    y.sum().backward();
    EXPECT_EQ(bias_HSL.grad().abs().max().item<double>(), 0);
  }
}

TEST(RelativeAttentionFormTest, BiasesThatDoNotFitAreRefused) {
  const std::vector<at::Tensor> in = Inputs(kCases[1], at::kDouble);
  const auto refused = [&](const AttentionBias& bias, const at::Tensor& k) {
    EXPECT_THROW(RelativeAttention(in[0], k, k, bias, {}), c10::Error);
  };
  refused({in[3][0], {}}, in[1]);
  refused({in[3].narrow(2, 0, 6), {}}, in[1]);
  refused({{}, Allowed().to(at::kLong)}, in[1]);
  refused({{}, Allowed().narrow(0, 0, 2)}, in[1]);
  refused({{}, {}, true}, in[1].narrow(2, 0, 6));
}

}  // namespace
}  // namespace hypermoe
