#include "tests/support/tiny_run.h"

#include <ATen/TensorOperators.h>

#include <filesystem>
#include <fstream>

#include "kernels/keyed_random.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/safetensors.h"
#include "runtime/token_file.h"
#include "tests/support/run_comparison.h"

namespace hypermoe {

TinyRuns::TinyRuns() {
  if (World()->rank() == 0) {
    WriteTokens("tokens", 3000, 2);
    WriteTokens("more", 1000, 3);
  }
  World()->Barrier();
}

void TinyRuns::WriteTokens(const std::string& name, uint64_t count, uint64_t stream) const {
  auto writer = TokenFileWriter::Create(folder_ + "/" + name, 257);
  ASSERT_TRUE(writer.ok()) << writer.status();
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>(UniformAt({1, stream}, i) * 256));
  ASSERT_TRUE((*writer)->Append(ids).ok());
  ASSERT_TRUE((*writer)->EndDocument().ok());
  ASSERT_TRUE((*writer)->Finish().ok());
}

PretrainOptions TinyRuns::Options(const std::string& run, RuntimeConfig::Dtype dtype) const {
  PretrainOptions options;
  options.config = TinyConfig(ModelConfig::hyper, 6, dtype);
  options.config.mutable_data()->add_train()->set_prefix(folder_ + "/tokens");
  TrainFile& more = *options.config.mutable_data()->add_train();
  more.set_prefix(folder_ + "/more");
  more.set_weight(2.5);
  // 12 steps of 96 tokens.
  options.config.mutable_train()->set_steps(0);
  options.config.mutable_train()->set_tokens(1100);
  options.config.mutable_train()->set_micro_batches(2);
  options.config.mutable_train()->set_validation_every(3);
  options.config.mutable_checkpoint()->set_every(4);
  options.run_dir = folder_ + "/" + run;
  return options;
}

std::vector<std::string> Metrics(const std::string& run_dir) {
  std::vector<std::string> lines;
  std::ifstream in(run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) lines.push_back(ComparableLine(line));
  return lines;
}

NamedTensors StoredTensors(const std::string& run_dir) {
  NamedTensors tensors;
  const auto checkpoint = ResolveCheckpoint(run_dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const auto& entry : std::filesystem::directory_iterator(*checkpoint)) {
    if (entry.path().extension() != ".safetensors") continue;
    const auto file = SafetensorsFile::Open(entry.path().string());
    EXPECT_TRUE(file.ok()) << file.status();
    for (const std::string& name : (*file)->names()) tensors[name] = (*file)->Get(name)->clone();
  }
  return tensors;
}

void ExpectSameTensors(const std::string& run_dir, const std::string& expected_run_dir) {
  const NamedTensors tensors = StoredTensors(run_dir), expected = StoredTensors(expected_run_dir);
  ASSERT_EQ(tensors.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(tensor.equal(tensors.at(name))) << run_dir << ": " << name;
  }
}

}  // namespace hypermoe
