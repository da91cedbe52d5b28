#include "runtime/gpt2_tokenizer.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/byte_pair_merger.h"
#include "runtime/gpt2_vocabulary.h"
#include "runtime/utf8.h"
#include "runtime/word_splitter.h"

namespace hypermoe {
namespace {

// Most words of a text are frequent ones. A table in which a new word takes the place of another
// needs no bookkeeping and bounds the memory: 4 MB and the words' own bytes.
constexpr size_t kCachedWords = 1 << 16;
constexpr size_t kMaxCachedWord = 32;  // bytes; longer words hardly ever come again

class Gpt2Encoder : public TextEncoder {
 public:
  explicit Gpt2Encoder(const Gpt2Vocabulary& vocabulary)
      : merger_(vocabulary), cache_(kCachedWords) {}

  void Write(std::string_view piece, std::vector<int32_t>* ids) override {
    held_.append(piece);
    // A word that goes on from piece to piece would be searched from its beginning each time:
    // waiting until it has doubled keeps the work proportional to its length.
    if (held_.size() >= 2 * undecided_) EncodeHeld(true, ids);
  }

  void Finish(std::vector<int32_t>* ids) override { EncodeHeld(false, ids); }

 private:
  struct CachedWord {
    std::string word;
    std::vector<int32_t> ids;
  };

  // Encodes the words of held_ that are certain and keeps the rest.
  void EncodeHeld(bool more_may_follow, std::vector<int32_t>* ids) {
    std::string_view rest = held_;
    while (!rest.empty()) {
      const size_t valid = ValidUtf8Prefix(rest);
      const size_t unfinished = more_may_follow ? UnfinishedUtf8Tail(rest) : 0;
      const bool ill_formed = valid + unfinished < rest.size();
      const size_t words = EncodeWords(rest.substr(0, valid), more_may_follow && !ill_formed, ids);
      rest.remove_prefix(words);
      if (!ill_formed) break;
      EncodeWord(rest.substr(0, 1), ids);
      rest.remove_prefix(1);
    }
    held_.erase(0, held_.size() - rest.size());
    undecided_ = held_.size();
  }

  // Encodes words of well-formed `text`; how many bytes.
  size_t EncodeWords(std::string_view text, bool more_may_follow, std::vector<int32_t>* ids) {
    size_t done = 0;
    while (done < text.size()) {
      const size_t size = splitter_.FirstWord(text.substr(done), more_may_follow);
      if (size == 0) break;
      EncodeWord(text.substr(done, size), ids);
      done += size;
    }
    return done;
  }

  void EncodeWord(std::string_view word, std::vector<int32_t>* ids) {
    if (word.size() > kMaxCachedWord) return merger_.Merge(word, ids);
    CachedWord& cached = cache_[std::hash<std::string_view>()(word) % kCachedWords];
    if (cached.word != word) {
      cached.word = word;
      cached.ids.clear();
      merger_.Merge(word, &cached.ids);
    }
    ids->insert(ids->end(), cached.ids.begin(), cached.ids.end());
  }

  WordSplitter splitter_;
  BytePairMerger merger_;
  std::vector<CachedWord> cache_;  // by hash
  std::string held_;               // begins with a word
  size_t undecided_ = 0;           // bytes of held_ whose first word was found to go on
};

class Gpt2Tokenizer : public Tokenizer {
 public:
  explicit Gpt2Tokenizer(Gpt2Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  int64_t vocab_size() const override { return static_cast<int64_t>(vocabulary_.pieces.size()); }
  int32_t end_of_text() const override { return vocabulary_.end_of_text; }
  std::unique_ptr<TextEncoder> NewEncoder() const override {
    return std::make_unique<Gpt2Encoder>(vocabulary_);
  }

  absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids) const override {
    std::string text;
    for (const int64_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        return DataError(absl::StrCat("the GPT-2 tokenizer cannot decode id ", id,
                                      ": it knows 0 to ", vocab_size() - 1));
      }
      if (id != end_of_text()) text += vocabulary_.pieces[static_cast<size_t>(id)];
    }
    return text;
  }

 private:
  const Gpt2Vocabulary vocabulary_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGpt2Tokenizer(const std::string& folder) {
  ASSIGN_OR_RETURN(Gpt2Vocabulary vocabulary, ReadGpt2Vocabulary(folder));
  return std::make_unique<Gpt2Tokenizer>(std::move(vocabulary));
}

}  // namespace hypermoe
