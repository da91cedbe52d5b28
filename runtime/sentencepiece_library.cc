#include "runtime/sentencepiece_library.h"

#include <sentencepiece_processor.h>

#include <stdexcept>
#include <utility>

namespace hypermoe {
namespace {

void ThrowIfError(const sentencepiece::util::Status& status) {
  if (!status.ok()) throw std::runtime_error("SentencePiece: " + status.ToString());
}

}  // namespace

struct SentencePieceLibrary::Processor {
  sentencepiece::SentencePieceProcessor library;
};

std::unique_ptr<SentencePieceLibrary> SentencePieceLibrary::Load(std::string_view content,
                                                                 std::string* problem) {
  auto processor = std::make_unique<Processor>();
  const auto status = processor->library.LoadFromSerializedProto({content.data(), content.size()});
  if (!status.ok()) {
    *problem = status.ToString();
    return nullptr;
  }
  return std::unique_ptr<SentencePieceLibrary>(new SentencePieceLibrary(std::move(processor)));
}

SentencePieceLibrary::SentencePieceLibrary(std::unique_ptr<Processor> processor)
    : processor_(std::move(processor)) {}

SentencePieceLibrary::~SentencePieceLibrary() = default;

int32_t SentencePieceLibrary::size() const { return processor_->library.GetPieceSize(); }

int32_t SentencePieceLibrary::end_id() const { return processor_->library.eos_id(); }

void SentencePieceLibrary::Encode(std::string_view text, std::vector<int32_t>* ids) const {
  std::vector<int> added;
  ThrowIfError(processor_->library.Encode({text.data(), text.size()}, &added));
  ids->insert(ids->end(), added.begin(), added.end());
}

std::string SentencePieceLibrary::Decode(const std::vector<int32_t>& ids) const {
  std::string text;
  ThrowIfError(processor_->library.Decode(ids, &text));
  return text;
}

}  // namespace hypermoe
