// Files that are no safetensors files, each in one way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/safetensors.h"
#include "tests/support/safetensors_bytes.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string Bytes(const std::string& header, const std::string& data) {
  return SafetensorsBytes(header, data);
}

struct Malformed {
  const char* title;
  std::string bytes;
  std::string reason;  // part of the message
};

std::vector<Malformed> MalformedFiles() {
  const auto tensor = [](const std::string& rest) { return "{\"w\":{" + rest + "}}"; };
  const std::string four(4, 'x');
  return {
      {"empty file", "", "0 bytes"},
      {"shorter than the length", "\x02\0\0", "length alone takes 8"},
      {"header beyond the file", Bytes("{}", "").replace(0, 1, "\x03"),
       "header of 3 bytes in a file of 10"},
      {"huge header", std::string(8, '\xFF'), "18446744073709551615 bytes, at most 100000000"},
      {"no header", Bytes("", ""), "not JSON"},
      {"not JSON", Bytes("{\"w\":", ""), "not JSON"},
      {"NUL padding", Bytes(std::string("{}\0", 3), ""), "not JSON"},
      {"bytes after the object", Bytes("{}{}", ""), "not JSON"},
      {"byte order mark", Bytes("\xEF\xBB\xBF{}", ""), "byte order mark"},
      {"not UTF-8", Bytes("{\"\xFF\":{}}", ""), "not JSON"},
      {"an array", Bytes("[]", ""), "an array, expected an object"},
      {"tensor is a number", Bytes("{\"w\":1}", ""), "tensor 'w': is the number 1"},
      {"tensor is null", Bytes("{\"w\":null}", ""), "tensor 'w': is null"},
      {"metadata with a number", Bytes(R"({"__metadata__":{"a":1}})", ""),
       "metadata holds the number 1"},
      {"metadata twice", Bytes(R"({"__metadata__":{},"__metadata__":{}})", ""), "stands twice"},
      {"metadata key twice", Bytes(R"({"__metadata__":{"a":"","a":""}})", ""),
       "metadata key 'a' stands twice"},
      {"tensor twice",
       Bytes(
           R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
           four),
       "tensor 'w' stands twice"},
      {"field twice",
       Bytes(tensor(R"("dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4])"), four),
       "'dtype' stands twice"},
      {"no shape", Bytes(tensor(R"("dtype":"U8","data_offsets":[0,4])"), four),
       "tensor 'w': no field 'shape'"},
      {"unknown dtype", Bytes(tensor(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"), four),
       "unknown dtype 'F31'"},
      {"dtype is a number", Bytes(tensor(R"("dtype":5,"shape":[1],"data_offsets":[0,4])"), four),
       "dtype is the number 5"},
      {"negative dimension",
       Bytes(tensor(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])"), four),
       "shape holds the number -4"},
      {"fractional dimension",
       Bytes(tensor(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])"), four),
       "shape holds the number 4.0"},
      {"nested shape", Bytes(tensor(R"("dtype":"U8","shape":[[4]],"data_offsets":[0,4])"), four),
       "shape holds an array"},
      {"shape is a number", Bytes(tensor(R"("dtype":"U8","shape":4,"data_offsets":[0,4])"), four),
       "shape holds the number 4"},
      {"product overflows",
       Bytes(tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), ""),
       "overflows"},
      {"bits overflow",
       Bytes(tensor(R"("dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,0])"), ""),
       "overflows"},
      {"half a byte", Bytes(tensor(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])"), "x"),
       "whole number of bytes"},
      {"one offset", Bytes(tensor(R"("dtype":"U8","shape":[4],"data_offsets":[4])"), four),
       "1 numbers, expected 2"},
      {"three offsets", Bytes(tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])"), four),
       "3 numbers, expected 2"},
      {"offset beyond 64 bits",
       Bytes(tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551620])"), four),
       "data_offsets holds the number 18446744073709551620"},
      {"backward offsets", Bytes(tensor(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])"), four),
       "do not span the 4 bytes"},
      {"offsets unlike the shape",
       Bytes(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), four),
       "do not span the 8 bytes"},
      {"gap at the start", Bytes(tensor(R"("dtype":"U8","shape":[3],"data_offsets":[1,4])"), four),
       "begins at byte 1"},
      {"overlap",
       Bytes(
           R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
           four),
       "tensor 'b' begins at byte 2 of the data, expected 3 (overlap)"},
      {"hole",
       Bytes(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
           four),
       "(gap)"},
      {"bytes at the end", Bytes(tensor(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])"), four),
       "3 bytes of data, the file has 4"},
      {"truncated", Bytes(tensor(R"("dtype":"U8","shape":[5],"data_offsets":[0,5])"), four),
       "5 bytes of data, the file has 4 (cut off?)"},
      {"control characters", Bytes(R"({"a\n\u001b[31m":1})", ""), R"(tensor 'a\n\033[31m')"},
      {"deep nesting", Bytes("{\"w\":{\"x\":" + std::string(100000, '[') + "}}", ""),
       "nested deeper"},
  };
}

TEST(SafetensorsMalformedTest, EachIsRefusedWithItsReason) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  for (const Malformed& malformed : MalformedFiles()) {
    WriteFile(path, malformed.bytes);
    const absl::Status status = SafetensorsFile::Open(path).status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData) << malformed.title;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(path), HasSubstr(malformed.reason)))
        << malformed.title;
  }
}

}  // namespace
}  // namespace hypermoe
