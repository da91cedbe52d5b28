#include "runtime/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/safetensors_bytes.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class SafetensorsTest : public testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenBytes(const std::string& bytes) {
    WriteFile(path_, bytes);
    return SafetensorsFile::Open(path_);
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "a.safetensors";
};

TEST_F(SafetensorsTest, ReadsAFileWrittenByteByByte) {
  std::string data("\x01\x02\x03", 3);
  const float values[2] = {1.5f, -2.0f};
  data.append(reinterpret_cast<const char*>(values), sizeof(values));
  // Leading white space and unknown fields are accepted, as by the reference; the floats are not
  // aligned.
  const auto file = OpenBytes(SafetensorsBytes(
      R"( {"__metadata__":{"format":"pt"},"f":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11],"x":[{"y":[1]},null]},)"
      R"("b":{"data_offsets":[0,3],"shape":[3],"dtype":"U8"},"none":{"dtype":"I64","shape":[4,0],"data_offsets":[3,3]},)"
      R"("end":{"dtype":"BOOL","shape":[0],"data_offsets":[11,11]}}   )",
      data));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->names(), ElementsAre("b", "end", "f", "none"));
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  const at::Tensor f = (*file)->Get("f").value();
  EXPECT_THAT(f.sizes().vec(), ElementsAre(2, 1));
  EXPECT_EQ(f.data_ptr<float>()[0], 1.5f);
  EXPECT_EQ(f.data_ptr<float>()[1], -2.0f);
  const at::Tensor b = (*file)->Get("b").value();
  EXPECT_EQ(b.data_ptr<uint8_t>()[2], 3);
  EXPECT_THAT((*file)->Get("none").value().sizes().vec(), ElementsAre(4, 0));
  EXPECT_TRUE((*file)->contains("end"));
  EXPECT_FALSE((*file)->contains("g"));
  EXPECT_THAT(Message((*file)->Get("g").status()), AllOf(HasSubstr(path_), HasSubstr("'g'")));
}

TEST_F(SafetensorsTest, ReadsFilesWithoutTensors) {
  EXPECT_TRUE(OpenBytes(SafetensorsBytes("{}", "")).ok());
  const auto file = OpenBytes(SafetensorsBytes(R"({"__metadata__":null})", ""));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->names().empty());
}

TEST_F(SafetensorsTest, RoundTripsEveryDtype) {
  std::vector<NamedTensor> tensors;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                     at::kInt, at::kShort, at::kChar, at::kByte, at::kBool}) {
    tensors.push_back({std::string("t.") + c10::toString(dtype),
                       at::arange(-2, 4, at::kFloat).view({2, 3}).to(dtype)});
  }
  tensors.push_back({"rank0", at::full({}, 0.1, at::kDouble)});
  tensors.push_back({"empty", at::empty({3, 0, 2}, at::kFloat)});
  tensors.push_back({"transposed", at::arange(6, at::kFloat).view({2, 3}).t()});
  tensors.push_back({"odd \"name\"\n\xC3\xA9", at::arange(3, at::kByte)});
  const auto digest = WriteSafetensors(path_, tensors, {{"step", "7"}, {"note", "a\"b"}});
  ASSERT_TRUE(digest.ok()) << digest.status();

  const std::string bytes = ReadFile(path_);
  EXPECT_EQ(digest->bytes, static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(digest->chunks,
            std::vector<std::string>{DigestOf(bytes.data(), bytes.size()).xxh3_128});
  EXPECT_EQ(bytes[8], '{');
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);

  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->names().size(), tensors.size());
  EXPECT_EQ((*file)->metadata().at("note"), "a\"b");
  for (const NamedTensor& written : tensors) {
    const at::Tensor read = (*file)->Get(written.name).value();
    EXPECT_EQ(read.scalar_type(), written.tensor.scalar_type()) << written.name;
    EXPECT_TRUE(at::equal(read, written.tensor)) << written.name;
  }
}

TEST_F(SafetensorsTest, TensorsOutliveTheirFile) {
  ASSERT_TRUE(WriteSafetensors(path_, {{"a", at::arange(100, at::kLong)}}, {}).ok());
  const at::Tensor a = SafetensorsFile::Open(path_).value()->Get("a").value();
  std::filesystem::remove(path_);
  EXPECT_TRUE(at::equal(a, at::arange(100, at::kLong)));
}

TEST_F(SafetensorsTest, FollowsTheUmaskAndLeavesNothingBeside) {
  const mode_t old = umask(0027);
  ASSERT_TRUE(WriteSafetensors(path_, {{"a", at::arange(3, at::kFloat)}}, {}).ok());
  umask(old);
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
}

TEST_F(SafetensorsTest, RefusesToWriteWhatCannotBeRead) {
  const at::Tensor a = at::arange(3, at::kFloat);
  EXPECT_THAT(Message(WriteSafetensors(path_, {{"a", a}, {"a", a}}, {}).status()),
              HasSubstr("'a'"));
  EXPECT_FALSE(WriteSafetensors(path_, {{"__metadata__", a}}, {}).ok());
  EXPECT_FALSE(WriteSafetensors(path_, {{"bad\xFF", a}}, {}).ok());
  EXPECT_FALSE(WriteSafetensors(path_, {{"a", a.to(at::kComplexFloat)}}, {}).ok());
  EXPECT_EQ(ExitCodeOf(WriteSafetensors(folder_ / "missing/a", {{"a", a}}, {}).status()),
            ExitCode::kIo);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  ASSERT_TRUE(WriteSafetensors(
                  path_, {{"a", at::arange(3, at::kFloat)}, {"b", at::arange(2, at::kByte)}}, {})
                  .ok());
  const std::string bytes = ReadFile(path_);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(OpenBytes(bytes.substr(0, size)).ok())
        << size << " of " << bytes.size() << " bytes";
  }
}

TEST_F(SafetensorsTest, RefusesValuesThatLibTorchCannotHold) {
  const auto unsigned_int = OpenBytes(
      SafetensorsBytes(R"({"w":{"dtype":"U64","shape":[],"data_offsets":[0,8]}})", "12345678"));
  ASSERT_TRUE(unsigned_int.ok()) << unsigned_int.status();
  EXPECT_THAT(Message((*unsigned_int)->Get("w").status()),
              AllOf(HasSubstr("'w'"), HasSubstr("U64")));
  const auto boolean = OpenBytes(
      SafetensorsBytes(R"({"w":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\x01\x02"));
  ASSERT_TRUE(boolean.ok()) << boolean.status();
  EXPECT_THAT(Message((*boolean)->Get("w").status()), HasSubstr("bytes other than 0 and 1"));
  const auto wide = OpenBytes(SafetensorsBytes(
      R"({"w":{"dtype":"U8","shape":[0,9223372036854775807,3],"data_offsets":[0,0]}})", ""));
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_THAT(Message((*wide)->Get("w").status()), HasSubstr("63 bits"));
}

TEST_F(SafetensorsTest, NamesWhatCannotBeOpened) {
  const auto check = [](const std::string& path, const std::string& reason) {
    const absl::Status status = SafetensorsFile::Open(path).status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
    EXPECT_THAT(Message(status), AllOf(HasSubstr(path), HasSubstr(reason)));
  };
  check(folder_ / "missing", "No such file");
  check(folder_.path(), "not a regular file");
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  check(path_, "not a regular file");
}

TEST(SafetensorsOracleTest, ReadsWhatTheReferenceWrote) {
  const std::string folder = HYPERMOE_TEST_DATA "/gpt2_dense/";
  const auto golden = SafetensorsFile::Open(folder + "golden.safetensors");
  ASSERT_TRUE(golden.ok()) << golden.status();
  EXPECT_EQ((*golden)->metadata().at("dtype"), "float64");
  const at::Tensor input_ids = (*golden)->Get("input_ids").value();
  const at::Tensor logits = (*golden)->Get("logits").value();
  EXPECT_EQ(input_ids.scalar_type(), at::kLong);
  EXPECT_EQ(logits.scalar_type(), at::kDouble);
  EXPECT_EQ(logits.dim(), 3);
  EXPECT_EQ(logits.size(0), input_ids.size(0));
  EXPECT_EQ(logits.size(1), input_ids.size(1));

  const auto model = SafetensorsFile::Open(folder + "model.safetensors");
  ASSERT_TRUE(model.ok()) << model.status();
  const at::Tensor wte = (*model)->Get("wte.weight").value();
  EXPECT_EQ(wte.size(0), logits.size(2));
}

}  // namespace
}  // namespace hypermoe
