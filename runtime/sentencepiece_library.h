// The SentencePiece library, behind types of the standard library alone: its header cannot stand in
// a file that includes Abseil.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hypermoe {

class SentencePieceLibrary {
 public:
  // Of a model file's content, which must have been checked (sentencepiece_file.h). Null, and what
  // is wrong in `problem`, if the library refuses it.
  static std::unique_ptr<SentencePieceLibrary> Load(std::string_view content, std::string* problem);
  ~SentencePieceLibrary();
  SentencePieceLibrary(const SentencePieceLibrary&) = delete;
  SentencePieceLibrary& operator=(const SentencePieceLibrary&) = delete;

  int32_t size() const;
  // Of the piece that ends a text; -1 if the model has none.
  int32_t end_id() const;
  // Appends the ids of `text`.
  void Encode(std::string_view text, std::vector<int32_t>* ids) const;
  // Ids must be from 0 to size() - 1.
  std::string Decode(const std::vector<int32_t>& ids) const;

 private:
  struct Processor;
  explicit SentencePieceLibrary(std::unique_ptr<Processor> processor);

  std::unique_ptr<Processor> processor_;
};

}  // namespace hypermoe
