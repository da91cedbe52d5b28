#include "runtime/input_texts.h"

#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/file_util.h"
#include "runtime/text_reader.h"

namespace hypermoe {
namespace {

void AddLines(const std::string& text, std::vector<std::string>* lines) {
  if (text.empty()) return;
  for (const auto line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n'))
    lines->emplace_back(absl::StripSuffix(line, "\r"));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadTexts(const std::string& path) {
  TextReaderOptions options;
  options.remedy = "correct the file: every text needs an output, so that none is skipped";
  ASSIGN_OR_RETURN(const std::unique_ptr<TextReader> reader, TextReader::Open(path, options));
  std::vector<std::string> texts;
  std::string text;
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<TextPiece> piece, reader->Next());
    if (!piece) break;
    text += piece->text;
    if (!piece->ends_document) continue;
    if (IsJsonLines(path)) {
      texts.push_back(text);
    } else {
      AddLines(text, &texts);
    }
    text.clear();
  }
  if (texts.empty()) {
    return DataError(absl::StrCat(Printable(path),
                                  " has no text: give one a line, or as {\"text\": \"...\"} in a "
                                  "file that ends in .jsonl"));
  }
  return texts;
}

}  // namespace hypermoe
