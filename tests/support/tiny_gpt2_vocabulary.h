// Files of a GPT-2 tokenizer with few merges: piece b has id b for each byte b, then come the
// merges' results, then <|endoftext|>.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace hypermoe {

using MergeList = std::vector<std::pair<std::string, std::string>>;  // in bytes

// How the files show `bytes`: what is not a printable character of Latin-1 as U+0100 and up.
inline std::string ShownBytes(const std::string& bytes) {
  std::string shown;
  for (const char c : bytes) {
    const int byte = static_cast<unsigned char>(c);
    int character = byte;
    if (byte <= 0x20) character = 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0) character = 0x121 + byte - 0x7F;
    if (byte == 0xAD) character = 0x143;
    if (character < 0x80) {
      shown.push_back(static_cast<char>(character));
    } else {
      shown.push_back(static_cast<char>(0xC0 | character >> 6));
      shown.push_back(static_cast<char>(0x80 | (character & 0x3F)));
    }
  }
  return shown;
}

inline std::string TinyVocabJson(const MergeList& merges) {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  std::set<std::string> results;
  for (const auto& [left, right] : merges) {
    if (results.insert(left + right).second) pieces.push_back(left + right);
  }
  pieces.push_back("<|endoftext|>");
  std::string json = "{";
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (id > 0) json += ", ";
    json += "\"";
    if (pieces[id] == "\"" || pieces[id] == "\\") json += "\\";
    json += ShownBytes(pieces[id]) + "\": " + std::to_string(id);
  }
  return json + "}";
}

inline std::string TinyMergesText(const MergeList& merges) {
  std::string text = "#version: 0.2\n";
  for (const auto& [left, right] : merges)
    text += ShownBytes(left) + " " + ShownBytes(right) + "\n";
  return text;
}

// " the" is id 259 of these, and <|endoftext|> 261.
inline const MergeList kTinyMerges = {
    {" ", "t"}, {"h", "e"}, {"i", "n"}, {" t", "he"}, {"\n", "\n"}};

// Writes both files; the tokenizer's name, "gpt2:DIR".
inline std::string WriteTinyGpt2(const TemporaryFolder& folder, const MergeList& merges) {
  folder.Write("vocab.json", TinyVocabJson(merges));
  folder.Write("merges.txt", TinyMergesText(merges));
  return "gpt2:" + folder.path();
}

}  // namespace hypermoe
