#include "runtime/prepare.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/rate_progress.h"
#include "runtime/text_reader.h"
#include "runtime/token_file.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

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
              RateProgress& progress)
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
  RateProgress& progress_;
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
  RateProgress megabytes(progress, "prepare", total_bytes, {"MB", 1e6, 1});
  Preparation preparation(options, *tokenizer, *writer, megabytes);
  for (const std::string& input : options.inputs) RETURN_IF_ERROR(preparation.Add(input));
  RETURN_IF_ERROR(writer->Finish());
  return preparation.result();
}

}  // namespace hypermoe
