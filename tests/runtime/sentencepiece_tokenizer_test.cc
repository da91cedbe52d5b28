#include "runtime/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "configs/sentencepiece.pb.h"
#include "runtime/sentencepiece_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_sentencepiece.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Piece = SentencePieceModel::Piece;

// A table of normalisations that gives "b" for "B": the trie's root at 0 with its children at 256
// to 511, the child of "B", whose value lies at the begin of the 256 behind.
std::string SmallCharsmap() {
  std::vector<uint32_t> trie(1024);
  trie[0] = 256 << 10;
  trie[256 ^ 'B'] = 1 << 8 | ((256 ^ 'B') ^ 512) << 10 | 'B';
  trie[512] = 1u << 31;  // value 0: the first text
  const auto bytes = static_cast<uint32_t>(trie.size() * sizeof(uint32_t));
  std::string blob(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  blob.append(reinterpret_cast<const char*>(trie.data()), bytes);
  blob.append("b").push_back('\0');
  return blob;
}

class SentencePieceTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const std::string& content) {
    return MakeTokenizer("spm:" + folder_.Write("model", content));
  }
  std::unique_ptr<Tokenizer> MakeGood(const SentencePieceModel& model) {
    auto tokenizer = Make(model.SerializeAsString());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  }
  // That the file is refused, by name.
  void ExpectRefused(const std::string& content, const std::string& problem) {
    const absl::Status status = Make(content).status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData) << problem;
    EXPECT_THAT(std::string(status.message()), HasSubstr(folder_ / "model"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(problem));
  }

  TemporaryFolder folder_;
};

std::vector<int32_t> Encode(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  tokenizer.Encode(text, &ids);
  return ids;
}

TEST_F(SentencePieceTest, EncodesAndDecodes) {
  const auto tokenizer = MakeGood(SmallModel());
  EXPECT_EQ(tokenizer->vocab_size(), 11 + 100);
  EXPECT_EQ(tokenizer->end_of_text(), 1);
  EXPECT_THAT(Encode(*tokenizer, "  to   be."), ElementsAre(4, 5, 10));
  EXPECT_THAT(Encode(*tokenizer, "tob"), ElementsAre(4, 8));
  EXPECT_THAT(Encode(*tokenizer, "x"), ElementsAre(3, 2));
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre());
  EXPECT_EQ(*tokenizer->Decode({4, 5, 10, 1}), "to be.");
}

TEST_F(SentencePieceTest, SpecialPiecesWrittenOutAreText) {
  const auto tokenizer = MakeGood(SmallModel());
  for (const int32_t id : Encode(*tokenizer, "</s> <pad> <extra_id_0>")) {
    EXPECT_GE(id, 2);
    EXPECT_LT(id, 11);
  }
}

TEST_F(SentencePieceTest, SentinelsCountDownFromTheLastId) {
  const auto tokenizer = MakeGood(SmallModel());
  EXPECT_EQ(tokenizer->first_sentinel(), 110);
  EXPECT_EQ(*tokenizer->Decode({4, 110, 5, 11}), "to <extra_id_0> be <extra_id_99>");
  for (const int64_t id : {int64_t{-1}, int64_t{111}}) {
    const auto text = tokenizer->Decode({id});
    EXPECT_EQ(ExitCodeOf(text.status()), ExitCode::kBadData);
    EXPECT_THAT(std::string(text.status().message()), HasSubstr(std::to_string(id)));
  }
}

TEST_F(SentencePieceTest, NormalisesByTheTable) {
  SentencePieceModel model = SmallModel();
  model.mutable_normalizer()->set_precompiled_charsmap(SmallCharsmap());
  EXPECT_THAT(Encode(*MakeGood(model), "to Be"), ElementsAre(4, 5));
}

// In pieces cut anywhere; also where no cut is allowed.
TEST_F(SentencePieceTest, IdsDoNotDependOnThePieces) {
  std::mt19937 random(1);
  SentencePieceModel reaches_over = SmallModel();
  AddPiece(&reaches_over, "\u2581to\u2581be", -1);
  for (const SentencePieceModel& model : {SmallModel(), reaches_over}) {
    const auto tokenizer = MakeGood(model);
    const auto encoder = tokenizer->NewEncoder();
    for (int trial = 0; trial < 200; ++trial) {
      std::string text;
      for (int i = 0; i < 60; ++i) text += "tobe  .x\u00e9"[random() % 10];
      std::vector<int32_t> ids;
      for (size_t at = 0; at < text.size();) {
        const size_t size = std::min<size_t>(text.size() - at, random() % 7);
        encoder->Write(std::string_view(text).substr(at, size), &ids);
        at += size;
      }
      encoder->Finish(&ids);
      EXPECT_EQ(ids, Encode(*tokenizer, text)) << "'" << text << "'";
    }
  }
  EXPECT_THAT(Encode(*MakeGood(reaches_over), "to be"), ElementsAre(11));
}

TEST_F(SentencePieceTest, GivesIdsBeforeTheTextEnds) {
  const auto tokenizer = MakeGood(SmallModel());
  const auto encoder = tokenizer->NewEncoder();
  std::vector<int32_t> ids;
  encoder->Write("to be to b", &ids);
  EXPECT_THAT(ids, ElementsAre(4, 5, 4));
  encoder->Write("e", &ids);
  encoder->Finish(&ids);
  EXPECT_THAT(ids, ElementsAre(4, 5, 4, 5));
}

TEST_F(SentencePieceTest, BadModelsAreRefused) {
  const auto expect = [&](const std::function<void(SentencePieceModel*)>& change,
                          const std::string& problem) {
    SentencePieceModel model = SmallModel();
    change(&model);
    ExpectRefused(model.SerializePartialAsString(), problem);
  };
  expect([](auto* m) { m->clear_pieces(); }, "no pieces");
  expect([](auto* m) { m->mutable_pieces(5)->set_piece(""); }, "piece 5 ('') is empty");
  expect([](auto* m) { m->mutable_pieces(5)->set_piece(std::string(200'000, 'a')); },
         "has 200000 bytes, at most 4096");
  expect([](auto* m) { m->mutable_pieces(5)->set_piece("\xff"); }, "is not UTF-8");
  expect([](auto* m) { m->mutable_pieces(5)->set_piece(std::string(1, '\0')); }, "NUL");
  expect([](auto* m) { m->mutable_pieces(5)->set_score(std::nanf("")); }, "not finite");
  expect([](auto* m) { m->mutable_pieces(5)->set_piece("t"); }, "piece 6 ('t') is there twice");
  expect([](auto* m) { m->mutable_pieces(2)->set_type(Piece::NORMAL); },
         "0 pieces of type UNKNOWN");
  expect([](auto* m) { m->mutable_pieces(3)->set_type(Piece::UNKNOWN); },
         "2 pieces of type UNKNOWN");
  expect([](auto* m) { m->mutable_pieces(1)->set_piece("</end>"); }, "no piece that ends a text");
  ExpectRefused("", "no pieces");
  ExpectRefused("a text", "damaged, or no SentencePiece model");
  ExpectRefused(SmallModel().SerializeAsString() + "\x0a\x7f", "damaged");
  ExpectRefused(std::string((64 << 20) + 1, '\0'), "67108865 bytes");
  EXPECT_EQ(ExitCodeOf(MakeTokenizer("spm:" + (folder_ / "none")).status()), ExitCode::kIo);
  for (const std::string name : {"spm", "spm:"}) {
    EXPECT_EQ(ExitCodeOf(MakeTokenizer(name).status()), ExitCode::kUsage);
    EXPECT_THAT(std::string(MakeTokenizer(name).status().message()), HasSubstr("spm:FILE"));
  }
}

TEST_F(SentencePieceTest, TablesThatLeadOutAreRefused) {
  const std::string good = SmallCharsmap();
  EXPECT_EQ(CharsmapProblem(good), "");
  const auto with_unit = [&](size_t index, uint32_t unit) {
    std::string changed = good;
    std::copy_n(reinterpret_cast<const char*>(&unit), 4, changed.begin() + 4 + 4 * index);
    return changed;
  };
  // The last 256 elements, and then just behind them.
  EXPECT_EQ(CharsmapProblem(with_unit(0, 768 << 10)), "");
  EXPECT_THAT(CharsmapProblem(with_unit(0, 1024 << 10)), HasSubstr("a link of its trie"));
  // A child of the child, and a link behind it.
  EXPECT_THAT(CharsmapProblem(with_unit(512 ^ 'x', 2048 << 10 | 'x')), HasSubstr("a link"));
  EXPECT_THAT(CharsmapProblem(with_unit(512, 1u << 31 | 2)), HasSubstr("behind the last"));
  EXPECT_THAT(CharsmapProblem("abc"), HasSubstr("less than 4 bytes"));
  EXPECT_THAT(CharsmapProblem(good.substr(0, 4100)), HasSubstr("4096 bytes"));
  EXPECT_THAT(CharsmapProblem(good.substr(0, good.size() - 1)), HasSubstr("does not end"));
  std::string odd = good;
  odd[0] = 1;
  EXPECT_THAT(CharsmapProblem(odd), HasSubstr("no positive multiple of 4"));
  SentencePieceModel model = SmallModel();
  model.mutable_normalizer()->set_precompiled_charsmap(with_unit(0, 1024 << 10));
  ExpectRefused(model.SerializeAsString(), "precompiled_charsmap: a link of its trie leaves it");
}

// Whatever still loads also works.
TEST_F(SentencePieceTest, FlippedBitsCrashNothing) {
  SentencePieceModel model = SmallModel();
  model.mutable_normalizer()->set_precompiled_charsmap(SmallCharsmap());
  const std::string good = model.SerializeAsString();
  std::mt19937 random(1);
  std::string text;
  for (int i = 1; i < 256; ++i) text += "to Be. " + std::string(1, static_cast<char>(i));
  int loaded = 0;
  for (int trial = 0; trial < 500; ++trial) {
    std::string bad = good;
    // Most of the file is the table's empty elements: half of the flips go elsewhere.
    const size_t at = trial % 2 == 0 ? random() % bad.size() : random() % 256;
    bad[at] = static_cast<char>(bad[at] ^ 1 << random() % 8);
    if (trial % 3 == 0) bad.resize(random() % bad.size());
    const auto tokenizer = Make(bad);
    if (!tokenizer.ok()) continue;
    ++loaded;
    std::vector<int32_t> ids = Encode(**tokenizer, text);
    EXPECT_TRUE((*tokenizer)->Decode(std::vector<int64_t>(ids.begin(), ids.end())).ok());
  }
  EXPECT_GT(loaded, 50);
  EXPECT_LT(loaded, 450);
}

}  // namespace
}  // namespace hypermoe
