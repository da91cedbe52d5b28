// Runs one test body over the devices and dtypes of kernels. A program with CUDA finds the GPU, if
// there is one, when it runs; elsewhere the cases for it are skipped, and counted as skipped.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <tuple>
#include <vector>

namespace hypermoe {

struct TestPlace {
  at::DeviceType device;
  at::ScalarType dtype;

  at::TensorOptions Options() const { return at::TensorOptions(dtype).device(device); }
  at::Tensor Put(const at::Tensor& tensor) const { return tensor.to(Options()); }
};

inline std::string NameOf(const TestPlace& place) {
  return std::string(place.device == at::kCPU ? "cpu_" : "cuda_") +
         (place.dtype == at::kFloat    ? "float32"
          : place.dtype == at::kDouble ? "float64"
                                       : "bfloat16");
}
inline void PrintTo(const TestPlace& place, std::ostream* out) { *out << NameOf(place); }
// For INSTANTIATE_TEST_SUITE_P over places alone.
inline std::string NameOfPlace(const testing::TestParamInfo<TestPlace>& info) {
  return NameOf(info.param);
}

// For tests that go through the devices themselves: the CPU, and a GPU where there is one.
inline std::vector<at::Device> DevicesHere() {
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA);
  return devices;
}

// To be called in SetUp, whose end then skips the test.
inline void SkipWithoutDevice(at::DeviceType device) {
  if (device == at::kCUDA && !at::hasCUDA()) GTEST_SKIP() << "no GPU in this machine or program";
}

class TestInPlace : public testing::TestWithParam<TestPlace> {
 protected:
  void SetUp() override { SkipWithoutDevice(GetParam().device); }
};

// Every place for every case.
template <typename Case>
class TestCaseInPlace : public testing::TestWithParam<std::tuple<Case, TestPlace>> {
 protected:
  void SetUp() override { SkipWithoutDevice(Place().device); }
  static const Case& Given() { return std::get<0>(TestCaseInPlace::GetParam()); }
  static const TestPlace& Place() { return std::get<1>(TestCaseInPlace::GetParam()); }
};

// float64 on a GPU too: the same code, and errors cannot hide in rounding.
inline auto AllPlaces() {
  return testing::Values(TestPlace{at::kCPU, at::kFloat}, TestPlace{at::kCPU, at::kDouble},
                         TestPlace{at::kCPU, at::kBFloat16}, TestPlace{at::kCUDA, at::kFloat},
                         TestPlace{at::kCUDA, at::kDouble}, TestPlace{at::kCUDA, at::kBFloat16});
}

}  // namespace hypermoe
