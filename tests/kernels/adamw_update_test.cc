#include "kernels/adamw_update.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

class AdamWUpdateTest : public TestInPlace {
 protected:
  static at::Tensor OnDevice(double value, at::ScalarType dtype = at::kFloat) {
    return at::full({1}, value, at::TensorOptions(dtype).device(GetParam().device));
  }

  // Pieces of these lengths, each from `offset` elements into its arrays on.
  static std::vector<AdamWPiece> Pieces(const std::vector<int64_t>& lengths, int64_t offset,
                                        bool copied = false) {
    std::vector<AdamWPiece> pieces;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto array = [&](const std::string& name, double scale) {
        const at::Tensor room = at::empty({offset + lengths[i]}, GetParam().Options());
        const at::Tensor values = Random({lengths[i]}, name + std::to_string(i)) * scale;
        return room.narrow(0, offset, lengths[i]).copy_(values);
      };
      AdamWPiece piece = {array("value", 1),
                          array("gradient", 3),
                          array("m", 1),
                          array("v", 1).abs_(),
                          {},
                          1 - 0.01 * static_cast<double>(i % 3)};
      if (copied) {
        piece.copy = at::zeros({offset + lengths[i]}, GetParam().Options().dtype(at::kBFloat16))
                         .narrow(0, offset, lengths[i]);
      }
      pieces.push_back(piece);
    }
    return pieces;
  }

  static AdamWFactors Factors() { return {0.7, 0.9, 0.95, 2e-3, 1.3, 1e-6, {}, {}}; }

  // The equation of the header, in float64 on the CPU.
  static AdamWPiece Expected(const AdamWPiece& before, const AdamWFactors& f, double scale) {
    const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kDouble); };
    const at::Tensor g = wide(before.gradient) * scale,
                     m = wide(before.m) * f.beta1 + g * (1 - f.beta1),
                     v = wide(before.v) * f.beta2 + g * g * (1 - f.beta2);
    return {wide(before.value) * before.value_decay -
                m * f.step_size / ((v * f.second_correction).sqrt() + f.epsilon),
            g,
            m,
            v,
            {},
            1};
  }

  static std::vector<AdamWPiece> Cloned(const std::vector<AdamWPiece>& pieces) {
    std::vector<AdamWPiece> clones;
    for (const AdamWPiece& p : pieces) {
      clones.push_back({p.value.clone(), p.gradient.clone(), p.m.clone(), p.v.clone(),
                        p.copy.defined() ? p.copy.clone() : p.copy, p.value_decay});
    }
    return clones;
  }
  static void ExpectSame(const std::vector<AdamWPiece>& a, const std::vector<AdamWPiece>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(a[i].value.equal(b[i].value)) << "piece " << i;
      EXPECT_TRUE(a[i].gradient.equal(b[i].gradient)) << "piece " << i;
      EXPECT_TRUE(a[i].m.equal(b[i].m)) << "piece " << i;
      EXPECT_TRUE(a[i].v.equal(b[i].v)) << "piece " << i;
      ASSERT_EQ(a[i].copy.defined(), b[i].copy.defined());
      EXPECT_TRUE(!a[i].copy.defined() || a[i].copy.equal(b[i].copy)) << "piece " << i;
    }
  }
};

// Around what a thread, a block and a pack take, empty pieces between others, and more pieces than
// a launch takes.
const std::vector<int64_t> kLengths = {0, 1, 2, 3, 5, 0, 64, 257, 4095, 4096, 4097, 40001, 0};
std::vector<int64_t> ManyLengths() {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 131; ++i) lengths.push_back(i % 5 == 4 ? 0 : 37 * i + 1);
  return lengths;
}

TEST_P(AdamWUpdateTest, FollowsTheEquation) {
  for (const std::vector<int64_t>& lengths : {kLengths, ManyLengths()}) {
    const std::vector<AdamWPiece> pieces = Pieces(lengths, 0), before = Cloned(pieces);
    AdamWUpdate(pieces, Factors());
    const double tolerance = GetParam().dtype == at::kDouble ? 1e-14 : 1e-6;
    for (size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_TRUE(pieces[i].gradient.equal(before[i].gradient));
      if (pieces[i].value.numel() == 0) continue;
      const AdamWPiece expected = Expected(before[i], Factors(), Factors().gradient_scale);
      EXPECT_LE(RelativeError(pieces[i].value, expected.value), tolerance) << "piece " << i;
      EXPECT_LE(RelativeError(pieces[i].m, expected.m), tolerance) << "piece " << i;
      EXPECT_LE(RelativeError(pieces[i].v, expected.v), tolerance) << "piece " << i;
    }
  }
}

// On the CPU this compares one call for all with one call for each.
TEST_P(AdamWUpdateTest, HasTheBitsOfTheCpuPieceByPiece) {
  const std::vector<AdamWPiece> pieces = Pieces(kLengths, 0, /*copied=*/true);
  std::vector<AdamWPiece> on_cpu;
  for (const AdamWPiece& p : pieces) {
    on_cpu.push_back({p.value.cpu().clone(), p.gradient.cpu().clone(), p.m.cpu().clone(),
                      p.v.cpu().clone(), p.copy.cpu().clone(), p.value_decay});
    AdamWUpdate({on_cpu.back()}, Factors());
  }
  AdamWUpdate(pieces, Factors());
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_TRUE(pieces[i].value.cpu().equal(on_cpu[i].value)) << "piece " << i;
    EXPECT_TRUE(pieces[i].m.cpu().equal(on_cpu[i].m)) << "piece " << i;
    EXPECT_TRUE(pieces[i].v.cpu().equal(on_cpu[i].v)) << "piece " << i;
    EXPECT_TRUE(pieces[i].copy.cpu().equal(on_cpu[i].copy)) << "piece " << i;
  }
}

TEST_P(AdamWUpdateTest, UnalignedSlicesHaveTheSameBits) {
  const std::vector<AdamWPiece> aligned = Pieces(kLengths, 0, /*copied=*/true);
  AdamWUpdate(aligned, Factors());
  for (const int64_t offset : {1, 2, 3}) {
    const std::vector<AdamWPiece> moved = Pieces(kLengths, offset, /*copied=*/true);
    AdamWUpdate(moved, Factors());
    ExpectSame(moved, aligned);
  }
}

TEST_P(AdamWUpdateTest, LeavesWhatIsAroundAPiece) {
  const at::Tensor room = at::zeros({20}, GetParam().Options());
  AdamWPiece piece = Pieces({11}, 0)[0];
  piece.value = room.narrow(0, 4, 11).copy_(piece.value);
  AdamWUpdate({piece}, Factors());
  EXPECT_EQ(room.narrow(0, 0, 4).ne(0).sum().item<int64_t>(), 0);
  EXPECT_EQ(room.narrow(0, 15, 5).ne(0).sum().item<int64_t>(), 0);
}

TEST_P(AdamWUpdateTest, CopyIsTheValueRounded) {
  const std::vector<AdamWPiece> pieces = Pieces(kLengths, 0, /*copied=*/true),
                                plain = Pieces(kLengths, 0);
  AdamWUpdate(pieces, Factors());
  AdamWUpdate(plain, Factors());
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_TRUE(pieces[i].value.equal(plain[i].value));
    EXPECT_TRUE(pieces[i].copy.equal(pieces[i].value.to(at::kBFloat16))) << "piece " << i;
  }
}

TEST_P(AdamWUpdateTest, ScaleOfTheDeviceMultipliesTheHosts) {
  const std::vector<AdamWPiece> expected = Pieces(kLengths, 0);
  AdamWFactors factors = Factors();
  factors.gradient_scale = 0.7 * 0.25;
  AdamWUpdate(expected, factors);
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const std::vector<AdamWPiece> pieces = Pieces(kLengths, 0);
    factors.gradient_scale = 0.7;
    factors.device_gradient_scale = OnDevice(0.25, dtype);
    AdamWUpdate(pieces, factors);
    ExpectSame(pieces, expected);
  }
}

TEST_P(AdamWUpdateTest, SkipFlagChangesNothing) {
  const std::vector<AdamWPiece> before = Pieces(kLengths, 0, /*copied=*/true);
  for (const at::ScalarType dtype : {at::kBool, at::kFloat, at::kLong}) {
    std::vector<AdamWPiece> pieces = Cloned(before);
    AdamWFactors factors = Factors();
    // What it is for: this would spread over everything.
    factors.device_gradient_scale = OnDevice(std::numeric_limits<double>::quiet_NaN());
    factors.skip = OnDevice(1, dtype);
    AdamWUpdate(pieces, factors);
    ExpectSame(pieces, before);

    factors.device_gradient_scale = at::Tensor();
    factors.skip = OnDevice(0, dtype);
    AdamWUpdate(pieces, factors);
    std::vector<AdamWPiece> expected = Cloned(before);
    AdamWUpdate(expected, Factors());
    ExpectSame(pieces, expected);
  }
}

TEST_P(AdamWUpdateTest, RefusesWhatDoesNotFitBeforeAnythingIsChanged) {
  const auto refuses = [](const auto& spoil) {
    std::vector<AdamWPiece> pieces = Pieces({8, 8}, 0, /*copied=*/true);
    const std::vector<AdamWPiece> before = Cloned(pieces);
    AdamWFactors factors = Factors();
    AdamWPiece spoiled = pieces[1];
    spoil(spoiled, factors);
    EXPECT_THROW(AdamWUpdate({pieces[0], spoiled}, factors), c10::Error);
    ExpectSame(pieces, before);
  };
  refuses([](AdamWPiece& p, AdamWFactors&) { p.m = p.m.narrow(0, 0, 7); });
  refuses([](AdamWPiece& p, AdamWFactors&) { p.gradient = p.gradient.to(at::kBFloat16); });
  refuses([](AdamWPiece& p, AdamWFactors&) { p.copy = p.copy.to(at::kFloat); });
  refuses([](AdamWPiece& p, AdamWFactors&) { p.copy = p.copy.narrow(0, 0, 7); });
  refuses([](AdamWPiece& p, AdamWFactors&) {
    p.v = at::zeros({16}, p.v.options()).slice(0, 0, 16, 2);
  });
  refuses([](AdamWPiece& p, AdamWFactors&) {
    const at::ScalarType other = p.value.scalar_type() == at::kFloat ? at::kDouble : at::kFloat;
    p = {p.value.to(other), p.gradient.to(other), p.m.to(other), p.v.to(other), {}, 1};
  });
  refuses([](AdamWPiece&, AdamWFactors& f) { f.skip = at::zeros({2}, GetParam().Options()); });
  refuses([](AdamWPiece&, AdamWFactors& f) {
    f.device_gradient_scale = at::zeros({0}, GetParam().Options());
  });
  if (GetParam().device == at::kCUDA) {
    refuses([](AdamWPiece& p, AdamWFactors&) { p.m = p.m.cpu(); });
    refuses([](AdamWPiece&, AdamWFactors& f) { f.skip = at::zeros({1}); });
  }
}

TEST_P(AdamWUpdateTest, TakesNoPieces) { EXPECT_NO_THROW(AdamWUpdate({}, Factors())); }

INSTANTIATE_TEST_SUITE_P(Places, AdamWUpdateTest,
                         testing::Values(TestPlace{at::kCPU, at::kFloat},
                                         TestPlace{at::kCPU, at::kDouble},
                                         TestPlace{at::kCUDA, at::kFloat},
                                         TestPlace{at::kCUDA, at::kDouble}),
                         NameOfPlace);

}  // namespace
}  // namespace hypermoe
