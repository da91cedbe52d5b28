// Reads documents out of text files, in pieces, so that memory stays flat whatever their size.
//
//   NAME.jsonl     one JSON object a line, the document in its text field (or a blank line)
//   anything else  plain UTF-8 text, the whole file one document
//
// Malformed text (ill-formed UTF-8, broken JSON, a missing or non-text field, too long a line)
// either ends reading with an error "FILE:LINE:COLUMN: ..." (columns count bytes from 1), or is
// skipped and counted: from JSON lines the document, from plain text, whose only document would be
// lost, the line (a line longer than a piece counts as several).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/status.h"

namespace hypermoe {

struct TextReaderOptions {
  bool skip_bad = false;
  std::string text_field = "text";
  size_t piece_bytes = 1 << 20;
  size_t max_line_bytes = 256u << 20;  // of JSON lines, each of which is held in memory
  // What errors tell the user to do.
  std::string remedy = "correct the file, or skip what is malformed with --on_bad_text=skip";
};

// Whole characters of one document.
struct TextPiece {
  std::string_view text;  // until the next call; may be empty
  bool ends_document = false;
};

class TextReader {
 public:
  static absl::StatusOr<std::unique_ptr<TextReader>> Open(const std::string& path,
                                                          const TextReaderOptions& options);
  virtual ~TextReader() = default;
  // The next piece, or nothing at the end of the file. An empty file has no document.
  virtual absl::StatusOr<std::optional<TextPiece>> Next() = 0;
  virtual int64_t bytes_read() const = 0;
  // Documents (JSON lines) or lines (plain text).
  virtual int64_t skipped() const = 0;
};

// Whether the name says so.
bool IsJsonLines(const std::string& path);

// The two kinds, for text_reader.cc.
absl::StatusOr<std::unique_ptr<TextReader>> OpenPlainText(const std::string& path,
                                                          const TextReaderOptions& options);
absl::StatusOr<std::unique_ptr<TextReader>> OpenJsonLines(const std::string& path,
                                                          const TextReaderOptions& options);

// Where to end a piece of `text` that more follows: after its last line or, within a longer one,
// after its last whole character.
size_t PieceEnd(std::string_view text);

// An error at a byte of a file; line and column count from 1.
absl::Status BadText(const std::string& path, int64_t line, int64_t column, const std::string& what,
                     const TextReaderOptions& options);
// What is wrong at the end of the valid prefix of `text`.
std::string BadUtf8Text(std::string_view text, size_t at);

}  // namespace hypermoe
