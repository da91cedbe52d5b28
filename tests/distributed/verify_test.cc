// The model computes what other implementations say, at every expert degree and in both precisions:
// each folder of tests/data with a golden file.
#include "runtime/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/verify_report.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

// Paths below tests/data, sorted: all ranks take the same order.
std::vector<std::string> Cases() {
  std::vector<std::string> cases;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(HYPERMOE_TEST_DATA)) {
    if (entry.path().filename() == "golden.safetensors")
      cases.push_back(
          std::filesystem::relative(entry.path().parent_path(), HYPERMOE_TEST_DATA).string());
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

class VerifyCaseTest : public testing::TestWithParam<std::string> {};

TEST_P(VerifyCaseTest, AtEveryDegreeAndPrecision) {
  VerifyOptions options;
  options.model = std::string(HYPERMOE_TEST_DATA) + "/" + GetParam();
  for (const int degree : Degrees()) {
    for (const char* dtype : {"float64", "float32"}) {
      options.dtype = dtype;
      const auto result = Verify(options, World(), degree);
      ASSERT_TRUE(result.ok()) << result.status().message();
      EXPECT_GT(result->entries.size(), 10u);
      EXPECT_TRUE(VerifyStatus(*result).ok()) << dtype << ", degree " << degree << "\n"
                                              << VerifyTable(*result);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, VerifyCaseTest, testing::ValuesIn(Cases()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
});

// Every rank sees a difference, whichever rank's rows or experts it is in.
TEST(VerifyTest, AllRanksFailAlike) {
  VerifyOptions options;
  options.model = std::string(HYPERMOE_TEST_DATA) + "/gpt2_hyper";
  options.dtype = "float64";
  options.tolerance = 0;
  const auto result = Verify(options, World(), World()->size());
  ASSERT_TRUE(result.ok()) << result.status().message();
  const std::string message(VerifyStatus(*result).message());
  EXPECT_THAT(message, testing::HasSubstr("the worst"));
  for (const std::string& other : World()->AllGatherText(message)) EXPECT_EQ(other, message);
}

}  // namespace
}  // namespace hypermoe
