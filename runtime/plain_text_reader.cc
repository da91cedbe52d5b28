#include <algorithm>
#include <utility>

#include "runtime/input_file.h"
#include "runtime/text_reader.h"
#include "runtime/utf8.h"

namespace hypermoe {
namespace {

class PlainTextReader : public TextReader {
 public:
  PlainTextReader(std::string path, FileHandle file, const TextReaderOptions& options)
      : path_(std::move(path)), file_(std::move(file)), options_(options) {}

  absl::StatusOr<std::optional<TextPiece>> Next() override {
    while (!ended_) {
      buffer_.erase(0, used_);
      used_ = 0;
      RETURN_IF_ERROR(Fill());
      if (buffer_.empty()) {
        ended_ = true;
        if (has_text_) return TextPiece{"", true};
        break;
      }
      used_ = at_end_ ? buffer_.size() : PieceEnd(buffer_);
      const std::string_view piece(buffer_.data(), used_);
      const size_t valid = ValidUtf8Prefix(piece);
      if (valid < piece.size() && !options_.skip_bad) {
        Advance(piece.substr(0, valid));
        return BadText(path_, line_, column_, BadUtf8Text(piece, valid), options_);
      }
      const std::string_view good = valid < piece.size() ? KeepGoodLines(piece) : piece;
      Advance(piece);
      has_text_ = has_text_ || !good.empty();
      if (!good.empty()) return TextPiece{good, false};
    }
    return std::nullopt;
  }

  int64_t bytes_read() const override { return bytes_read_; }
  int64_t skipped() const override { return skipped_; }

 private:
  absl::Status Fill() {
    const size_t kept = buffer_.size();
    buffer_.resize(kept + options_.piece_bytes);
    ASSIGN_OR_RETURN(const size_t count,
                     ReadUpTo(file_, path_, buffer_.data() + kept, options_.piece_bytes));
    buffer_.resize(kept + count);
    bytes_read_ += static_cast<int64_t>(count);
    at_end_ = count < options_.piece_bytes;
    return absl::OkStatus();
  }

  std::string_view KeepGoodLines(std::string_view piece) {
    good_lines_.clear();
    while (!piece.empty()) {
      const std::string_view line =
          piece.substr(0, std::min(piece.find('\n'), piece.size() - 1) + 1);
      if (ValidUtf8Prefix(line) == line.size()) {
        good_lines_.append(line);
      } else {
        ++skipped_;
      }
      piece.remove_prefix(line.size());
    }
    return good_lines_;
  }

  void Advance(std::string_view text) {
    line_ += std::count(text.begin(), text.end(), '\n');
    const size_t last = text.rfind('\n');
    const size_t since = last == std::string_view::npos ? text.size() : text.size() - last - 1;
    column_ = static_cast<int64_t>(since) + (last == std::string_view::npos ? column_ : 1);
  }

  std::string path_;
  FileHandle file_;
  TextReaderOptions options_;
  std::string buffer_;  // [0, used_) has been handed out
  std::string good_lines_;
  size_t used_ = 0;
  bool at_end_ = false, has_text_ = false, ended_ = false;
  int64_t line_ = 1, column_ = 1;  // of the buffer's first byte that has not been handed out
  int64_t bytes_read_ = 0, skipped_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextReader>> OpenPlainText(const std::string& path,
                                                          const TextReaderOptions& options) {
  ASSIGN_OR_RETURN(FileHandle file, OpenInput(path));
  return std::make_unique<PlainTextReader>(path, std::move(file), options);
}

}  // namespace hypermoe
