// Random damage to a checkpoint of three ranks' files is found whatever it hits, by one process
// that loads all of it, and named. HYPERMOE_CORRUPTION_FLIPS sets how many bits are flipped.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <utility>

#include "runtime/checkpoint_reshard.h"
#include "tests/support/checkpoint_fixture.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kChunk = 64;  // so that small files have many, and no message is cut short

// One bit of a file flipped while this lives.
class FlippedBit {
 public:
  FlippedBit(const std::string& path, int64_t bit)
      : file_(open(path.c_str(), O_RDWR)), offset_(bit / 8), mask_(1 << (bit % 8)) {
    Flip();
  }
  ~FlippedBit() {
    Flip();
    close(file_);
  }

 private:
  void Flip() {
    unsigned char byte = 0;
    EXPECT_EQ(pread(file_, &byte, 1, offset_), 1);
    byte ^= mask_;
    EXPECT_EQ(pwrite(file_, &byte, 1, offset_), 1);
  }
  int file_;
  off_t offset_;
  unsigned char mask_;
};

// A checkpoint of three ranks' files at step 1, and another at step 2 of other values.
class CheckpointCorruptionTest : public CheckpointTest {
 protected:
  CheckpointCorruptionTest() : random_(std::random_device()()) {
    const uint32_t seed = random_();
    std::printf("seed %u\n", seed);
    random_.seed(seed);
    for (const int salt : {1, 2}) {
      ReshardOptions options;
      options.checkpoint = Save(salt, salt);
      options.ranks = options.expert_parallel = 3;
      options.output = run_ / ("resharded" + std::to_string(salt));
      const auto made = ReshardCheckpoint(options, *mesh_.world);
      EXPECT_TRUE(made.ok()) << made.status();
      (salt == 1 ? checkpoint_ : other_) = *made;
      Rechunk(*made, kChunk);
    }
    for (const auto& entry : fs::directory_iterator(checkpoint_)) {
      const std::string name = entry.path().filename();
      sizes_[name] = static_cast<int64_t>(entry.file_size());
      if (name != "manifest.json") ReadPlaces(name);
    }
    EXPECT_EQ(sizes_.size(), 4u);
  }

  void ReadPlaces(const std::string& name) {
    const auto file = SafetensorsFile::Open(checkpoint_ + "/" + name).value();
    int64_t header = sizes_[name];
    for (const std::string& tensor : file->names()) {
      const auto range = file->Range(tensor).value();
      places_[name][range.second] = tensor;
      header = std::min(header, range.first);
    }
    places_[name][header] = "the file's header";
  }

  // What the message about a byte of a file must name.
  std::string Place(const std::string& file, int64_t offset) const {
    if (file == "manifest.json") return file;
    return places_.at(file).upper_bound(offset)->second;
  }

  // A byte of all files, each as likely as any other.
  std::pair<std::string, int64_t> AnyByte() {
    int64_t total = 0;
    for (const auto& [name, size] : sizes_) total += size;
    auto byte = static_cast<int64_t>(random_() % total);
    for (const auto& [name, size] : sizes_) {
      if (byte < size) return {name, byte};
      byte -= size;
    }
    return {};
  }

  absl::Status Load(TaggedModel& model, Digests digests = Digests::kCheck) {
    return LoadCheckpoint(checkpoint_, kNumExperts, model.buffers(), model.optimizer(),
                          *mesh_.world, digests);
  }

  // After the damage is undone the checkpoint must be as before, or the test has shown nothing.
  void ExpectWhole() {
    TaggedModel model({});
    const absl::Status loaded = Load(model);
    EXPECT_TRUE(loaded.ok()) << loaded;
    EXPECT_THAT(model.WrongValues(1), IsEmpty());
  }

  std::mt19937 random_;
  std::string checkpoint_, other_;
  std::map<std::string, int64_t> sizes_;
  std::map<std::string, std::map<int64_t, std::string>> places_;  // by file and end of each
};

TEST_F(CheckpointCorruptionTest, EveryFlippedBitIsFoundAndNamed) {
  const char* wanted = std::getenv("HYPERMOE_CORRUPTION_FLIPS");
  const int flips = wanted != nullptr ? std::atoi(wanted) : 2000;
  TaggedModel model({});
  std::map<std::string, int> hits;
  for (int i = 0; i < flips && !HasFailure(); ++i) {
    const auto [name, byte] = AnyByte();
    const FlippedBit flipped(checkpoint_ + "/" + name, byte * 8 + random_() % 8);
    const absl::Status status = Load(model);
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData) << name << ", byte " << byte;
    EXPECT_THAT(Message(status),
                AllOf(HasSubstr(checkpoint_ + "/" + name), HasSubstr(Place(name, byte))))
        << "byte " << byte;
    if (name != "manifest.json") {
      const int64_t begin = byte / kChunk * kChunk;
      EXPECT_THAT(Message(status), HasSubstr("bytes " + std::to_string(begin) + " to "));
    }
    EXPECT_TRUE(model.AllZero());
    ++hits[name];
  }
  EXPECT_EQ(hits.size(), sizes_.size());
  ExpectWhole();
}

// Without digests damage to values gets through: it is they that find it above.
TEST_F(CheckpointCorruptionTest, WithoutDigestsFlippedBitsGetThrough) {
  int loaded = 0, changed = 0;
  for (int i = 0; i < 100; ++i) {
    const auto [name, byte] = AnyByte();
    if (name == "manifest.json" || Place(name, byte) == "the file's header") continue;
    const FlippedBit flipped(checkpoint_ + "/" + name, byte * 8 + random_() % 8);
    TaggedModel model({});
    loaded += Load(model, Digests::kIgnore).ok();
    changed += model.WrongValues(1).size() + model.WrongMoments(1).size() == 1;
  }
  EXPECT_GT(loaded, 0);
  EXPECT_EQ(changed, loaded);
}

TEST_F(CheckpointCorruptionTest, FilesCutShortAnywhereAreRefused) {
  TaggedModel model({});
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    const auto [name, bytes] = AnyByte();
    const std::string path = checkpoint_ + "/" + name;
    const std::string whole = ReadFile(path);
    fs::resize_file(path, bytes);
    const absl::Status status = Load(model);
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData) << name << " of " << bytes << " bytes";
    EXPECT_THAT(Message(status), AllOf(HasSubstr(checkpoint_), HasSubstr(name)));
    EXPECT_TRUE(model.AllZero());
    WriteFile(path, whole);
  }
  ExpectWhole();
}

TEST_F(CheckpointCorruptionTest, FilesInAnothersPlaceAreRefused) {
  TaggedModel model({});
  const auto expect_refused = [&](const std::string& name, const std::string& what) {
    const absl::Status status = Load(model);
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData) << what;
    EXPECT_THAT(Message(status), AllOf(HasSubstr(checkpoint_), HasSubstr(name))) << what;
    EXPECT_TRUE(model.AllZero()) << what;
  };
  const auto swap = [](const std::string& a, const std::string& b) {
    fs::rename(a, a + "~");
    fs::rename(b, a);
    fs::rename(a + "~", b);
  };
  for (const auto& [name, size] : sizes_) {
    const std::string path = checkpoint_ + "/" + name;
    // Of another step, of the same size but for the manifest.
    swap(path, other_ + "/" + name);
    expect_refused(name == "manifest.json" ? "rank_0000" : name, name + " of another step");
    swap(path, other_ + "/" + name);

    fs::rename(path, run_ / "gone");
    expect_refused(name, name + " missing");
    fs::rename(run_ / "gone", path);

    fs::copy_file(path, checkpoint_ + "/copy");
    expect_refused("'copy'", name + " twice");
    fs::remove(checkpoint_ + "/copy");

    for (const auto& [another, another_size] : sizes_) {
      if (another <= name) continue;
      swap(path, checkpoint_ + "/" + another);
      expect_refused("", name + " and " + another + " swapped");
      swap(path, checkpoint_ + "/" + another);
    }
  }
  // Of the same size, so that nothing but the content tells them apart.
  const std::string one = checkpoint_ + "/rank_00001.safetensors";
  const std::string two = checkpoint_ + "/rank_00002.safetensors";
  ASSERT_EQ(fs::file_size(one), fs::file_size(two));
  const std::string whole = ReadFile(two);
  fs::copy_file(one, two, fs::copy_options::overwrite_existing);
  expect_refused("rank_00002.safetensors", "one in place of two");
  WriteFile(two, whole);
  fs::create_directory(checkpoint_ + "/folder");
  expect_refused("'folder'", "a folder");
  fs::remove(checkpoint_ + "/folder");
  ExpectWhole();
}

// A rank that holds a third of the experts does not read the others', and together the ranks find
// damage to any chunk.
TEST_F(CheckpointCorruptionTest, EachRankChecksWhatItReadsAndAllTogetherEverything) {
  std::vector<std::unique_ptr<TaggedModel>> ranks;
  for (const int rank : {0, 1, 2}) {
    TaggedLayout layout;
    layout.expert_degree = 3;
    layout.expert_rank = rank;
    ranks.push_back(std::make_unique<TaggedModel>(layout));
  }
  int by_one = 0, by_all = 0;
  for (const auto& [name, size] : sizes_) {
    if (name == "manifest.json") continue;
    for (int64_t begin = 0; begin < size; begin += kChunk) {
      const FlippedBit flipped(checkpoint_ + "/" + name, begin * 8);
      size_t refused = 0;
      for (const auto& rank : ranks) refused += !Load(*rank).ok();
      EXPECT_GT(refused, 0u) << name << ", byte " << begin;
      by_one += refused == 1;
      by_all += refused == ranks.size();
    }
  }
  EXPECT_GT(by_one, 0);
  EXPECT_GT(by_all, 0);
}

}  // namespace
}  // namespace hypermoe
