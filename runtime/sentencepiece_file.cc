#include "runtime/sentencepiece_file.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "configs/sentencepiece.pb.h"
#include "runtime/file_util.h"
#include "runtime/utf8.h"

namespace hypermoe {
namespace {

constexpr size_t kMaxFileBytes = 64u << 20;  // T5's has 0.8 MB
constexpr int kMaxPieces = 2 << 20;
constexpr size_t kMaxPieceBytes = 4 << 10;  // the library recurses over the characters of a piece
constexpr char kSpace[] = "\u2581";         // as it stands in pieces

// One element of a trie as a double array (Darts-clone): a node or, with its top bit set, a value.
class TrieUnit {
 public:
  explicit TrieUnit(uint32_t bits) : bits_(bits) {}
  bool has_value() const { return (bits_ >> 8 & 1) != 0; }
  uint32_t value() const { return bits_ & 0x7FFFFFFF; }
  uint32_t label() const { return bits_ & 0x800000FF; }
  uint32_t offset() const { return bits_ >> 10 << ((bits_ & 1u << 9) >> 6); }

 private:
  uint32_t bits_;
};

TrieUnit UnitAt(absl::string_view trie, size_t index) {
  uint32_t bits;
  std::memcpy(&bits, trie.data() + index * sizeof bits, sizeof bits);
  return TrieUnit(bits);
}

// Follows every link that a text could.
std::string TrieProblem(absl::string_view trie, size_t text_bytes) {
  const size_t size = trie.size() / sizeof(uint32_t);
  std::vector<bool> seen(size);
  std::vector<size_t> open = {0};
  seen[0] = true;
  while (!open.empty()) {
    const TrieUnit unit = UnitAt(trie, open.back());
    const size_t children = open.back() ^ unit.offset();
    open.pop_back();
    // Which of the 256 follows depends on the text.
    if ((children | 0xFF) >= size) return "a link of its trie leaves it";
    if (unit.has_value() && UnitAt(trie, children).value() >= text_bytes)
      return "its trie leads behind the last of its texts";
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const size_t child = children ^ byte;
      if (seen[child] || UnitAt(trie, child).label() != byte) continue;
      seen[child] = true;
      open.push_back(child);
    }
  }
  return "";
}

std::string PiecesProblem(const SentencePieceModel& model) {
  if (model.pieces_size() == 0) return "it has no pieces: it is not a SentencePiece model";
  if (model.pieces_size() > kMaxPieces)
    return absl::StrCat("it has ", model.pieces_size(), " pieces, at most ", kMaxPieces,
                        " are possible");
  absl::flat_hash_set<absl::string_view> seen;
  int unknown = 0;
  for (int id = 0; id < model.pieces_size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces(id);
    const std::string& text = piece.piece();
    const auto problem = [&](absl::string_view what) {
      return absl::StrCat("piece ", id, " ('", Printable(text.substr(0, 40)), "') ", what);
    };
    if (text.empty()) return problem("is empty");
    if (text.size() > kMaxPieceBytes)
      return problem(
          absl::StrCat("has ", text.size(), " bytes, at most ", kMaxPieceBytes, " are possible"));
    if (ValidUtf8Prefix(text) < text.size()) return problem("is not UTF-8");
    if (text.find('\0') != std::string::npos) return problem("has a NUL character");
    if (!std::isfinite(piece.score())) return problem("has a score that is not finite");
    if (!seen.insert(text).second) return problem("is there twice");
    unknown += piece.type() == SentencePieceModel::Piece::UNKNOWN ? 1 : 0;
  }
  if (unknown != 1)
    return absl::StrCat("it has ", unknown, " pieces of type UNKNOWN, exactly one is needed");
  return "";
}

// What is wrong with `model`, "" if nothing.
std::string ModelProblem(const SentencePieceModel& model) {
  for (const SentencePieceModel::Normalizer* normalizer :
       {&model.normalizer(), &model.denormalizer()}) {
    const std::string problem = CharsmapProblem(normalizer->precompiled_charsmap());
    if (!problem.empty()) return absl::StrCat("precompiled_charsmap: ", problem);
  }
  return PiecesProblem(model);
}

bool WordsAreIndependent(const SentencePieceModel& model) {
  const SentencePieceModel::Normalizer& normalizer = model.normalizer();
  if (!normalizer.add_dummy_prefix() || !normalizer.remove_extra_whitespaces() ||
      !normalizer.escape_whitespaces() || model.trainer().treat_whitespace_as_suffix()) {
    return false;
  }
  for (const SentencePieceModel::Piece& piece : model.pieces()) {
    const absl::string_view text = piece.piece();
    if (text.find(kSpace, 1) != absl::string_view::npos ||
        text.find(' ') != absl::string_view::npos) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::string CharsmapProblem(absl::string_view charsmap) {
  if (charsmap.empty()) return "";
  uint32_t trie_bytes = 0;
  if (charsmap.size() < sizeof trie_bytes) return "it has less than 4 bytes";
  std::memcpy(&trie_bytes, charsmap.data(), sizeof trie_bytes);
  charsmap.remove_prefix(sizeof trie_bytes);
  if (trie_bytes >= charsmap.size())
    return absl::StrCat("its trie should have ", trie_bytes, " bytes, but ", charsmap.size(),
                        " are left for it and its texts");
  if (trie_bytes == 0 || trie_bytes % sizeof(uint32_t) != 0)
    return absl::StrCat("its trie has ", trie_bytes, " bytes, no positive multiple of 4");
  if (charsmap.back() != '\0') return "the last of its texts does not end";
  return TrieProblem(charsmap.substr(0, trie_bytes), charsmap.size() - trie_bytes);
}

absl::StatusOr<SentencePieceFile> ReadSentencePieceFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const auto refuse = [&](absl::string_view problem) {
    return DataError(absl::StrCat(Printable(path), ": ", problem,
                                  ": give a SentencePiece model as spm_train writes it"));
  };
  if (file->size() > kMaxFileBytes) {
    return refuse(absl::StrCat("it has ", file->size(), " bytes, a tokenizer's file at most ",
                               kMaxFileBytes));
  }
  SentencePieceModel model;
  if (!model.ParseFromArray(file->data(), static_cast<int>(file->size())))
    return refuse("it is damaged, or no SentencePiece model");
  const std::string problem = ModelProblem(model);
  if (!problem.empty()) return refuse(problem);
  SentencePieceFile read;
  read.content.assign(file->data(), file->size());
  read.words_are_independent = WordsAreIndependent(model);
  return read;
}

}  // namespace hypermoe
