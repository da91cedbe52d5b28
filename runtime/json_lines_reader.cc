#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/input_file.h"
#include "runtime/text_reader.h"
#include "runtime/utf8.h"

namespace hypermoe {
namespace {

using Json = nlohmann::json;

constexpr size_t kBlockBytes = 1 << 20;

// Takes one field of the outermost object and keeps nothing else of a line.
class FieldExtractor : public nlohmann::json_sax<Json> {
 public:
  explicit FieldExtractor(const std::string& field) : field_(field) {}

  bool null() override { return Other(); }
  bool boolean(bool) override { return Other(); }
  bool number_integer(number_integer_t) override { return Other(); }
  bool number_unsigned(number_unsigned_t) override { return Other(); }
  bool number_float(number_float_t, const string_t&) override { return Other(); }
  bool binary(binary_t&) override { return Other(); }
  bool string(string_t& value) override {
    if (depth_ != 1 || !at_field_) return Other();
    text_ = std::move(value);
    at_field_ = false;
    return true;
  }
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (depth_ != 1) return true;
    at_field_ = name == field_;
    // Of a name given twice the last counts, as in most readers of JSON.
    if (at_field_) {
      text_.reset();
      wrong_type_ = false;
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    error_at_ = position;
    error_ = error.what();
    // Without the library's prefix, which counts lines and columns within the line.
    const size_t prefix = error_.find(": ");
    if (prefix != std::string::npos) error_.erase(0, prefix + 2);
    return false;
  }

  // What is wrong with the line, "" if nothing, and at which byte of it (from 1).
  std::string Problem(size_t* column) const {
    *column = std::max<size_t>(error_at_, 1);
    if (!error_.empty()) return absl::StrCat("not valid JSON: ", Printable(error_));
    if (!is_object_)
      return absl::StrCat("not a JSON object: give one a line, such as {\"", field_,
                          "\": \"...\"}");
    if (wrong_type_) return absl::StrCat("the field '", field_, "' is not a string");
    if (!text_) return absl::StrCat("the object has no field '", field_, "'");
    return "";
  }
  std::string TakeText() { return *std::move(text_); }

 private:
  bool Open(bool object) {
    if (depth_ == 0) is_object_ = object;
    Other();
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return true;
  }
  bool Other() {
    if (depth_ == 1 && at_field_) wrong_type_ = true;
    if (depth_ == 1) at_field_ = false;
    return true;
  }

  const std::string& field_;
  int64_t depth_ = 0;
  bool is_object_ = false, at_field_ = false, wrong_type_ = false;
  std::optional<std::string> text_;
  size_t error_at_ = 0;
  std::string error_;
};

class JsonLinesReader : public TextReader {
 public:
  JsonLinesReader(std::string path, FileHandle file, const TextReaderOptions& options)
      : path_(std::move(path)), file_(std::move(file)), options_(options) {}

  absl::StatusOr<std::optional<TextPiece>> Next() override {
    if (!in_document_) {
      ASSIGN_OR_RETURN(in_document_, NextDocument());
      if (!in_document_) return std::nullopt;
      given_ = 0;
    }
    std::string_view piece = std::string_view(text_).substr(given_, options_.piece_bytes);
    const bool last = given_ + piece.size() == text_.size();
    if (!last) piece = piece.substr(0, PieceEnd(piece));
    given_ += piece.size();
    in_document_ = !last;
    return TextPiece{piece, last};
  }

  int64_t bytes_read() const override { return bytes_read_; }
  int64_t skipped() const override { return skipped_; }

 private:
  // Reads the next good document into text_; false at the end of the file.
  absl::StatusOr<bool> NextDocument() {
    while (true) {
      ASSIGN_OR_RETURN(const bool more, ReadLine());
      if (!more) return false;
      if (line_.find_first_not_of(" \t\r") == std::string::npos) continue;
      size_t column = 1;
      const std::string problem = Parse(&column);
      if (problem.empty()) return true;
      if (!options_.skip_bad)
        return BadText(path_, line_number_, static_cast<int64_t>(column), problem, options_);
      ++skipped_;
    }
  }

  // False at the end of the file. Of a line that is too long only the beginning is kept.
  absl::StatusOr<bool> ReadLine() {
    line_.clear();
    line_bytes_ = 0;
    bool any = false;
    while (true) {
      if (used_ == block_.size()) {
        block_.resize(kBlockBytes);
        ASSIGN_OR_RETURN(const size_t count, ReadUpTo(file_, path_, block_.data(), block_.size()));
        block_.resize(count);
        used_ = 0;
        bytes_read_ += static_cast<int64_t>(count);
        if (count == 0) break;
      }
      any = true;
      const size_t end = block_.find('\n', used_);
      const size_t count = std::min(end, block_.size()) - used_;
      const size_t room = options_.max_line_bytes - line_.size();
      line_.append(block_, used_, std::min(count, room));
      line_bytes_ += count;
      used_ += count;
      if (end != std::string::npos) {
        ++used_;
        break;
      }
    }
    if (any) ++line_number_;
    return any;
  }

  // What is wrong with line_, "" if nothing; its text goes to text_.
  std::string Parse(size_t* column) {
    if (line_bytes_ > options_.max_line_bytes) {
      *column = options_.max_line_bytes + 1;
      return absl::StrCat("the line is longer than ", options_.max_line_bytes,
                          " bytes, the most that a document of a "
                          ".jsonl file may have");
    }
    if (const size_t valid = ValidUtf8Prefix(line_); valid < line_.size()) {
      *column = valid + 1;
      return BadUtf8Text(line_, valid);
    }
    FieldExtractor extractor(options_.text_field);
    Json::sax_parse(line_.begin(), line_.end(), &extractor);
    std::string problem = extractor.Problem(column);
    if (problem.empty()) text_ = extractor.TakeText();
    return problem;
  }

  std::string path_;
  FileHandle file_;
  TextReaderOptions options_;
  std::string block_, line_, text_;
  size_t used_ = 0;  // of block_
  bool in_document_ = false;
  size_t given_ = 0;  // of text_
  size_t line_bytes_ = 0;
  int64_t line_number_ = 0;
  int64_t bytes_read_ = 0, skipped_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextReader>> OpenJsonLines(const std::string& path,
                                                          const TextReaderOptions& options) {
  ASSIGN_OR_RETURN(FileHandle file, OpenInput(path));
  return std::make_unique<JsonLinesReader>(path, std::move(file), options);
}

}  // namespace hypermoe
