// train.loss_norm own_means: the mean over micro-batches and ranks of each one's own mean, as
// Hugging Face's Trainer has it.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

RunConfig Config(ModelConfig::Family family, int batch_size, int micro_batches) {
  RunConfig config = TinyConfigOf(family, ModelConfig::moe, 4, RuntimeConfig::float64);
  ModelConfig& model = *config.mutable_model();
  // Only what the norm is about.
  model.mutable_balance_loss()->set_coefficient(0);
  model.set_router_z_coefficient(0);
  config.mutable_train()->set_loss_norm(TrainConfig::own_means);
  config.mutable_train()->set_batch_size(batch_size);
  config.mutable_train()->set_micro_batches(micro_batches);
  return config;
}

struct Means {
  double loss = 0;
  NamedTensors gradients;
  bool of_equal_parts = true;  // they are then the mean over all tokens
};

// On one rank, part after part: the rows that each of `world` ranks has of each micro-batch.
Means MeanOfParts(const RunConfig& config, int world) {
  Trainer trainer(config, OneRankMesh(), TinyRows(config));
  Randomize(trainer);
  const TrainingRows rows(TinyTokens(), MakeRowFormat(config.data(), config.model()).value(),
                          config.train().batch_size(), config.runtime().seed());
  std::vector<RowRange> parts;
  for (int64_t i = 0; i < config.train().micro_batches(); ++i) {
    for (int rank = 0; rank < world; ++rank) {
      const RowRange part = RowsOfMicroBatch(config.train(), i, world, rank);
      if (part.size() > 0) parts.push_back(part);
    }
  }
  ForwardMode mode;
  mode.training = true;
  mode.key = trainer.StepKey(3);
  Means means;
  for (FlatBuffer& buffer : trainer.buffers()) buffer.ZeroGradients();
  for (const RowRange& part : parts) {
    const Batch batch = rows.Rows(3, part.begin, part.end);
    const at::Tensor mean =
        CrossEntropy(trainer.model().Forward(batch, mode).logits_TV, batch.labels_BS,
                     static_cast<double>(batch.labels_BS.numel())) /
        static_cast<double>(parts.size());
    mean.backward();
    means.loss += mean.item<double>();
    means.of_equal_parts &= part.size() == parts[0].size();
  }
  trainer.model().FinishBackward();
  means.gradients = Gradients(trainer);
  return means;
}

// 7 rows: parts of different size. 3 rows in 2 micro-batches: ranks without any.
TEST(LossNormTest, OwnMeansAreThoseOfEachMicroBatchOfEachRank) {
  for (const auto family : {ModelConfig::gpt2, ModelConfig::switch_transformers}) {
    for (const auto& [batch_size, micro_batches] : {std::pair(7, 1), {7, 3}, {3, 2}}) {
      RunConfig config = Config(family, batch_size, micro_batches);
      const Means expected = MeanOfParts(config, World()->size());
      for (const int degree : Degrees()) {
        const Outcome outcome = Compute(config, ProcessMesh::Create(World(), degree));
        const std::string what = std::to_string(batch_size) + " rows in " +
                                 std::to_string(micro_batches) + ", degree " +
                                 std::to_string(degree);
        EXPECT_LE(RelativeError(outcome.loss, expected.loss), 1e-12) << what;
        EXPECT_LE(LargestError(outcome.gradients, expected.gradients), 1e-12) << what;
      }
      config.mutable_train()->set_loss_norm(TrainConfig::all_tokens);
      EXPECT_EQ(RelativeError(Compute(config, OneRankMesh()).loss, expected.loss) <= 1e-9,
                expected.of_equal_parts);
    }
  }
}

}  // namespace
}  // namespace hypermoe
