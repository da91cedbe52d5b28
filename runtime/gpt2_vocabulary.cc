#include "runtime/gpt2_vocabulary.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

using Json = nlohmann::json;
using PieceIds = absl::flat_hash_map<std::string, int32_t>;

constexpr char kEndOfText[] = "<|endoftext|>";
constexpr size_t kMaxFileBytes = 64u << 20;  // GPT-2's have 1 MB
constexpr uint64_t kMaxPieces = 4u << 20;

// The files show every byte as a printable character: those that are printable in Latin-1 as
// themselves, the others, in order, as U+0100 and up.
constexpr int kFirstSubstitute = 256;
constexpr bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

// By character; -1: stands for no byte.
std::array<int, 2 * kFirstSubstitute> MakeByteTable() {
  std::array<int, 2 * kFirstSubstitute> bytes;
  bytes.fill(-1);
  int substitute = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) bytes[IsPrintable(byte) ? byte : substitute++] = byte;
  return bytes;
}

// The bytes that `shown` stands for; nothing if a character stands for none.
std::optional<std::string> BytesOf(std::string_view shown) {
  static const auto table = MakeByteTable();
  std::string bytes;
  for (size_t i = 0; i < shown.size(); ++i) {
    size_t character = static_cast<unsigned char>(shown[i]);
    if (character >= 0x80) {
      // All characters of the table beyond ASCII have two bytes.
      if (character < 0xC2 || character > 0xDF || ++i == shown.size()) return std::nullopt;
      const auto second = static_cast<unsigned char>(shown[i]);
      if (second < 0x80 || second > 0xBF) return std::nullopt;
      character = (character & 0x1F) << 6 | (second & 0x3F);
    }
    if (character >= table.size() || table[character] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(table[character]));
  }
  return bytes;
}

absl::StatusOr<std::shared_ptr<const MappedFile>> OpenChecked(const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  if (file->size() > kMaxFileBytes) {
    return DataError(absl::StrCat(path, ": has ", file->size(),
                                  " bytes, but a tokenizer's file may have at most ",
                                  kMaxFileBytes));
  }
  return file;
}

// Reads {"piece": id, ...} and stops at the first thing that is not so.
class PieceReader : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Other("null"); }
  bool boolean(bool) override { return Other("true or false"); }
  bool number_integer(number_integer_t value) override { return Other(absl::StrCat(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_object_ || value >= kMaxPieces) return Other(absl::StrCat(value));
    pieces.emplace_back(key_, static_cast<int32_t>(value));
    return true;
  }
  bool number_float(number_float_t, const string_t& text) override { return Other(text); }
  bool string(string_t&) override { return Other("a string"); }
  bool binary(binary_t&) override { return Other("binary"); }
  bool start_object(size_t) override {
    if (in_object_) return Other("an object");
    in_object_ = true;
    return true;
  }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return Other("a list"); }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const Json::exception& error) override {
    problem = absl::StrCat("not valid JSON: ", Printable(error.what()));
    return false;
  }

  std::vector<std::pair<std::string, int32_t>> pieces;  // in the file's order
  std::string problem;                                  // "" if none

 private:
  bool Other(const std::string& what) {
    problem = in_object_ ? absl::StrCat("the key '", Printable(key_), "' has ", Printable(what),
                                        " where an id is expected, a whole number from 0 to ",
                                        kMaxPieces - 1)
                         : "not a JSON object of pieces and their ids";
    return false;
  }

  std::string key_;
  bool in_object_ = false;
};

// What is wrong with vocab.json's `text`, or "".
std::string ParsePieces(std::string_view text, Gpt2Vocabulary* vocabulary, PieceIds* ids) {
  PieceReader reader;
  Json::sax_parse(text.begin(), text.end(), &reader);
  if (!reader.problem.empty()) return reader.problem;
  const size_t count = reader.pieces.size();
  std::vector<const std::string*> key_of_id(count);
  vocabulary->pieces.resize(count);
  for (const auto& [key, id] : reader.pieces) {
    const std::string name = absl::StrCat("the key '", Printable(key), "' ");
    const std::optional<std::string> bytes = BytesOf(key);
    if (!bytes) return name + "has a character that stands for no byte";
    if (bytes->empty()) return name + "is an empty piece";
    if (static_cast<size_t>(id) >= count) {
      return absl::StrCat(name, "has id ", id, ", but the ids of ", count, " pieces must be 0 to ",
                          count - 1);
    }
    if (!ids->emplace(*bytes, id).second) return name + "is there twice";
    if (key_of_id[id] != nullptr) {
      return absl::StrCat(name, "has id ", id, ", which '", Printable(*key_of_id[id]), "' has too");
    }
    key_of_id[id] = &key;
    vocabulary->pieces[id] = *bytes;
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids->find(std::string(1, static_cast<char>(byte)));
    if (found == ids->end()) return absl::StrCat("no piece stands for the single byte ", byte);
    vocabulary->byte_ids[byte] = found->second;
  }
  const auto end = ids->find(kEndOfText);
  if (end == ids->end()) return absl::StrCat("the key '", kEndOfText, "' is missing");
  vocabulary->end_of_text = end->second;
  return "";
}

class MergeReader {
 public:
  MergeReader(const PieceIds& ids, Gpt2Vocabulary* vocabulary)
      : ids_(ids), vocabulary_(*vocabulary), made_(vocabulary->pieces.size()) {
    for (const int32_t id : vocabulary_.byte_ids) made_[id] = true;
  }

  // What is wrong with a line, or "".
  std::string Add(std::string_view line) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return absl::StrCat("'", Printable(std::string(line)),
                          "' is not two pieces with one space between them");
    }
    const std::string shown[] = {std::string(line.substr(0, space)),
                                 std::string(line.substr(space + 1))};
    int32_t pair[2];
    for (int side = 0; side < 2; ++side) {
      const std::optional<std::string> bytes = BytesOf(shown[side]);
      const auto found = bytes ? ids_.find(*bytes) : ids_.end();
      if (found == ids_.end()) return NotInVocabulary(shown[side]);
      pair[side] = found->second;
      if (!made_[pair[side]]) {
        return absl::StrCat("the piece '", Printable(shown[side]),
                            "' is neither a single byte nor made by an earlier line");
      }
    }
    const auto merged = ids_.find(vocabulary_.pieces[pair[0]] + vocabulary_.pieces[pair[1]]);
    if (merged == ids_.end()) return NotInVocabulary(shown[0] + shown[1]);
    if (merged->second == vocabulary_.end_of_text) {
      return absl::StrCat("it makes '", kEndOfText, "', which no text may encode to");
    }
    const auto rank = static_cast<int32_t>(vocabulary_.merges.size());
    const uint64_t key = Gpt2Vocabulary::PairKey(pair[0], pair[1]);
    if (!vocabulary_.merges.try_emplace(key, Gpt2Vocabulary::Merge{rank, merged->second}).second)
      return absl::StrCat("the pair '", Printable(std::string(line)), "' is there twice");
    made_[merged->second] = true;
    return "";
  }

 private:
  static std::string NotInVocabulary(const std::string& shown) {
    return absl::StrCat("the piece '", Printable(shown), "' is not in vocab.json");
  }

  const PieceIds& ids_;
  Gpt2Vocabulary& vocabulary_;
  std::vector<bool> made_;  // by id: a single byte or the result of a merge
};

absl::Status ParseMerges(const std::string& path, std::string_view text, const PieceIds& ids,
                         Gpt2Vocabulary* vocabulary) {
  MergeReader reader(ids, vocabulary);
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const std::string problem = reader.Add(line);
    if (!problem.empty()) {
      return DataError(absl::StrCat(path, ":", number, ": ", problem,
                                    "; give the merges.txt that belongs to vocab.json"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Gpt2Vocabulary> ReadGpt2Vocabulary(const std::string& folder) {
  const std::string pieces_path = folder + "/vocab.json", merges_path = folder + "/merges.txt";
  ASSIGN_OR_RETURN(const auto pieces, OpenChecked(pieces_path));
  ASSIGN_OR_RETURN(const auto merges, OpenChecked(merges_path));
  Gpt2Vocabulary vocabulary;
  PieceIds ids;
  const std::string problem = ParsePieces({pieces->data(), pieces->size()}, &vocabulary, &ids);
  if (!problem.empty()) {
    return DataError(
        absl::StrCat(pieces_path, ": ", problem, "; give the vocab.json of a GPT-2 tokenizer"));
  }
  RETURN_IF_ERROR(ParseMerges(merges_path, {merges->data(), merges->size()}, ids, &vocabulary));
  return vocabulary;
}

}  // namespace hypermoe
