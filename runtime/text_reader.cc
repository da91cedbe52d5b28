#include "runtime/text_reader.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/utf8.h"

namespace hypermoe {

absl::StatusOr<std::unique_ptr<TextReader>> TextReader::Open(const std::string& path,
                                                             const TextReaderOptions& options) {
  return IsJsonLines(path) ? OpenJsonLines(path, options) : OpenPlainText(path, options);
}

bool IsJsonLines(const std::string& path) {
  return std::filesystem::path(path).extension() == ".jsonl";
}

size_t PieceEnd(std::string_view text) {
  const size_t line_end = text.rfind('\n');
  return line_end != std::string_view::npos ? line_end + 1 : text.size() - UnfinishedUtf8Tail(text);
}

absl::Status BadText(const std::string& path, int64_t line, int64_t column, const std::string& what,
                     const TextReaderOptions& options) {
  return DataError(absl::StrCat(path, ":", line, ":", column, ": ", what, "; ", options.remedy));
}

std::string BadUtf8Text(std::string_view text, size_t at) {
  return absl::StrFormat("byte 0x%02X does not begin a valid UTF-8 character",
                         static_cast<unsigned char>(text[at]));
}

}  // namespace hypermoe
