#include "tools/random_tokens.h"

#include <memory>
#include <string>

#include "kernels/keyed_random.h"

namespace hypermoe {
namespace {

class RandomTokenFile final : public TokenFile {
 public:
  RandomTokenFile(int64_t count, int64_t vocab_size) : count_(count), vocab_size_(vocab_size) {}
  int64_t num_tokens() const override { return count_; }
  int64_t num_documents() const override { return 1; }
  void Read(int64_t begin, int64_t count, int64_t* ids) const override {
    const RandomKey key = RandomKey{1, 0}.Derive("benchmark tokens");
    for (int64_t i = 0; i < count; ++i) {
      const double uniform = UniformAt(key, static_cast<uint64_t>(begin + i));
      ids[i] = static_cast<int64_t>(uniform * static_cast<double>(vocab_size_));
    }
  }
  absl::Status CheckIds(int64_t) const override { return absl::OkStatus(); }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  int64_t count_, vocab_size_;
  std::string fingerprint_ = "random";
};

}  // namespace

std::vector<WeightedTokens> RandomTokens(int64_t count, int64_t vocab_size) {
  return {{{std::make_shared<RandomTokenFile>(count, vocab_size), 0, count}, 1}};
}

std::shared_ptr<const TrainingData> RandomRows(const RunConfig& config, int64_t count) {
  return std::make_shared<TrainingRows>(RandomTokens(count, config.model().vocab_size()),
                                        MakeRowFormat(config.data(), config.model()).value(),
                                        config.train().batch_size(), config.runtime().seed());
}

}  // namespace hypermoe
