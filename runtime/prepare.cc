#include "runtime/prepare.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "parallel/steady_seconds.h"
#include "runtime/file_util.h"
#include "runtime/progress.h"
#include "runtime/text_reader.h"
#include "runtime/token_file.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

constexpr double kSecondsBetweenUpdates = 0.3;  // of a terminal's line
constexpr double kSecondsBetweenLines = 10;     // elsewhere

// "prepare: 45.2 of 120.0 MB  38.1 MB/s  eta 2s"
class ByteProgress {
 public:
  // `total` 0: not known (pipes).
  ByteProgress(std::FILE* out, int64_t total)
      : out_(out),
        total_(total),
        terminal_(out != nullptr && isatty(fileno(out)) != 0),
        begin_(SteadySeconds()),
        shown_(begin_) {}
  ~ByteProgress() {
    if (line_open_) std::fputc('\n', out_);
  }

  void Update(int64_t bytes) {
    const double now = SteadySeconds();
    if (out_ == nullptr ||
        now - shown_ < (terminal_ ? kSecondsBetweenUpdates : kSecondsBetweenLines))
      return;
    shown_ = now;
    const double rate = static_cast<double>(bytes) / (now - begin_);
    std::string text = absl::StrFormat("prepare: %.1f", static_cast<double>(bytes) / 1e6);
    if (total_ > 0) absl::StrAppendFormat(&text, " of %.1f", static_cast<double>(total_) / 1e6);
    absl::StrAppendFormat(&text, " MB  %.1f MB/s", rate / 1e6);
    if (total_ > 0 && rate > 0) {
      absl::StrAppend(&text, "  eta ", FormatDuration(static_cast<double>(total_ - bytes) / rate));
    }
    std::fprintf(out_, terminal_ ? "\r%s\033[K" : "%s\n", text.c_str());
    std::fflush(out_);
    line_open_ = terminal_;
  }

 private:
  std::FILE* out_;
  int64_t total_;
  bool terminal_, line_open_ = false;
  double begin_, shown_;
};

// Finds a missing input before hours of work on those before it. The bytes of all inputs, 0 if one
// is a pipe.
absl::StatusOr<int64_t> TotalBytes(const std::vector<std::string>& inputs) {
  int64_t total = 0;
  bool known = true;
  for (const std::string& input : inputs) {
    struct stat info;
    if (stat(input.c_str(), &info) != 0) return ErrnoError(input, "open", errno);
    if (S_ISDIR(info.st_mode)) {
      return IoError(absl::StrCat(
          input, " is a folder, not a text file: give its files one by one as --input"));
    }
    if (access(input.c_str(), R_OK) != 0) return ErrnoError(input, "open", errno);
    known = known && S_ISREG(info.st_mode);
    total += info.st_size;
  }
  return known ? total : 0;
}

class Preparation {
 public:
  Preparation(const PrepareOptions& options, const Tokenizer& tokenizer, TokenFileWriter& writer,
              ByteProgress& progress)
      : encoder_(tokenizer.NewEncoder()), writer_(writer), progress_(progress) {
    if (options.end_of_text) end_of_text_ = {tokenizer.end_of_text()};
    reader_options_.skip_bad = options.skip_bad_text;
    reader_options_.text_field = options.text_field;
  }

  absl::Status Add(const std::string& input) {
    ASSIGN_OR_RETURN(const std::unique_ptr<TextReader> reader,
                     TextReader::Open(input, reader_options_));
    const int64_t documents_before = result_.documents;
    while (true) {
      ASSIGN_OR_RETURN(const std::optional<TextPiece> piece, reader->Next());
      if (!piece) break;
      ids_.clear();
      encoder_->Write(piece->text, &ids_);
      if (piece->ends_document) {
        encoder_->Finish(&ids_);
        ids_.insert(ids_.end(), end_of_text_.begin(), end_of_text_.end());
      }
      RETURN_IF_ERROR(writer_.Append(ids_));
      result_.tokens += static_cast<int64_t>(ids_.size());
      if (piece->ends_document) {
        RETURN_IF_ERROR(writer_.EndDocument());
        ++result_.documents;
      }
      progress_.Update(bytes_before_ + reader->bytes_read());
    }
    bytes_before_ += reader->bytes_read();
    result_.skipped += reader->skipped();
    if (result_.documents > documents_before) return absl::OkStatus();
    if (reader->skipped() > 0) {
      return DataError(absl::StrCat("'", input,
                                    "' has no valid text: all of it was skipped as malformed (",
                                    reader->skipped(), " lines)"));
    }
    return DataError(
        absl::StrCat("'", input,
                     "' has no text: remove it from the inputs, or give a file with at least "
                     "one document"));
  }

  const PrepareResult& result() const { return result_; }

 private:
  const std::unique_ptr<TextEncoder> encoder_;
  std::vector<int32_t> end_of_text_;  // what follows each document
  TokenFileWriter& writer_;
  ByteProgress& progress_;
  TextReaderOptions reader_options_;
  std::vector<int32_t> ids_;
  int64_t bytes_before_ = 0;
  PrepareResult result_;
};

}  // namespace

absl::StatusOr<PrepareResult> Prepare(const PrepareOptions& options, std::FILE* progress) {
  if (options.inputs.empty())
    return UsageError("nothing to prepare: give at least one --input FILE");
  if (options.output.empty()) return UsageError("nowhere to write to: give --output PREFIX");
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, MakeTokenizer(options.tokenizer));
  ASSIGN_OR_RETURN(const int64_t total_bytes, TotalBytes(options.inputs));
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenFileWriter> writer,
                   TokenFileWriter::Create(options.output, tokenizer->vocab_size()));
  ByteProgress byte_progress(progress, total_bytes);
  Preparation preparation(options, *tokenizer, *writer, byte_progress);
  for (const std::string& input : options.inputs) RETURN_IF_ERROR(preparation.Add(input));
  RETURN_IF_ERROR(writer->Finish());
  return preparation.result();
}

}  // namespace hypermoe
