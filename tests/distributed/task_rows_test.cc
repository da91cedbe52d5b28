// A step on a task's examples is the same at every layout, and what fills rows up does not count.
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "runtime/run_data.h"
#include "tests/support/layouts.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_task.h"

namespace hypermoe {
namespace {

class TaskRowsTest : public testing::Test {
 protected:
  TaskRowsTest() {
    if (World()->rank() == 0) {
      WriteSentiments(folder_.path());
      WriteText(folder_.path());
    }
    World()->Barrier();
  }
  RunConfig Config(ModelConfig::Kind kind) const {
    return TinyTaskConfig(kind, RuntimeConfig::float64, "sst2", folder_.path());
  }
  SharedFolder folder_;
};

TEST_F(TaskRowsTest, GradientsDoNotDependOnTheMesh) {
  for (const bool limited : {false, true}) {
    RunConfig config = Config(ModelConfig::hyper);
    config.mutable_data()->set_pad_to_length(limited);
    config.mutable_data()->set_source_length(limited ? 40 : 30);  // the longest are cut
    if (limited) LimitCapacity(&config);
    for (const int micro_batches : {1, 4}) {
      config.mutable_train()->set_micro_batches(micro_batches);
      const RunData data = OpenRunData(config).value();
      const Outcome reference = Compute(config, OneRankMesh(), data.train);
      EXPECT_EQ(reference.dropped_LN.sum().item<int64_t>() > 0, limited);
      for (const int degree : Degrees()) {
        ExpectEqual(Compute(config, ProcessMesh::Create(World(), degree), data.train), reference,
                    1e-12,
                    "degree " + std::to_string(degree) + ", micro-batches " +
                        std::to_string(micro_batches));
      }
    }
  }
}

// Without what acts on positions that fill rows up (the balance loss counts them, as Hugging Face's
// does) the batch's loss is that of its examples one by one.
TEST_F(TaskRowsTest, WhatFillsRowsUpDoesNotCount) {
  RunConfig config = Config(ModelConfig::hyper);
  ModelConfig& model = *config.mutable_model();
  model.set_dropout(0);
  model.set_expert_dropout(0);
  model.set_router_jitter(0);
  const RunData data = OpenRunData(config).value();
  const Outcome batch = Compute(config, OneRankMesh(), data.train);
  Trainer trainer(config, OneRankMesh(), data.train);
  Randomize(trainer);
  double sum = 0, labels = 0;
  for (int64_t row = 0; row < config.train().batch_size(); ++row) {
    const RowRange alone = {row, row + 1};
    const Batch example = data.train->Rows(3, alone, alone);
    EXPECT_FALSE(example.attention_mask_BS.defined());
    const ModelOutput output = trainer.model().Forward(example, ForwardMode());
    sum += CrossEntropy(output.logits_TV, example.labels_BS, 1).item<double>();
    labels += static_cast<double>(example.labels_BS.numel());
  }
  EXPECT_EQ(labels, static_cast<double>(data.train->NumLabels(3)));
  EXPECT_NEAR(batch.loss, sum / labels, 1e-12 * batch.loss);
}

TEST_F(TaskRowsTest, ValidationDoesNotDependOnTheMeshNorOnPasses) {
  RunConfig config = Config(ModelConfig::hyper);
  const RunData data = OpenRunData(config).value();
  const auto losses = [&](const ProcessMesh& mesh) {
    Trainer trainer(config, mesh, data.train);
    Randomize(trainer);
    return trainer.Evaluate(*data.validation, 0)->loss;
  };
  const double reference = losses(OneRankMesh());
  for (const int rows : {1, 3, 12}) {
    config.mutable_train()->set_batch_size(rows);
    for (const int degree : Degrees()) {
      EXPECT_LE(RelativeError(losses(ProcessMesh::Create(World(), degree)), reference), 1e-12)
          << rows << " rows, degree " << degree;
    }
  }
}

// An expert takes a share of a row's tokens, those that fill it up too: still its outputs are its
// own.
TEST_F(TaskRowsTest, OutputsDoNotDependOnWhatIsDecodedTogether) {
  RunConfig config = Config(ModelConfig::moe);
  CapacityConfig& capacity = *config.mutable_model()->mutable_evaluation_capacity();
  capacity.set_mode(CapacityConfig::factor_per_group);
  capacity.set_factor(1);
  const RunData data = OpenRunData(config).value();
  std::vector<std::string> expected;
  for (const int batch_size : {1, 3, 100}) {
    config.mutable_decoding()->set_batch_size(batch_size);
    for (const int degree : Degrees()) {
      Trainer trainer(config, ProcessMesh::Create(World(), degree), data.train);
      Randomize(trainer);
      const auto outcome = EvaluateExamples(*data.task, data.examples, 0, config, *data.tokenizer,
                                            trainer.model(), {}, *World());
      ASSERT_TRUE(outcome.ok()) << outcome.status();
      const std::vector<std::string>& outputs = outcome->value().outputs;
      EXPECT_EQ(outputs.size(), World()->rank() == 0 ? 7u : 0u);
      if (expected.empty()) expected = outputs;
      EXPECT_EQ(outputs, expected) << "batch size " << batch_size << ", degree " << degree;
    }
  }
  if (World()->rank() == 0) {
    EXPECT_GT(std::set<std::string>(expected.begin(), expected.end()).size(), 1u);
  }
}

// Its rows are those of token files; the authors' perplexity has the balance loss in it.
TEST_F(TaskRowsTest, ATextIsCutIntoRows) {
  RunConfig config = TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float64);
  config.mutable_data()->set_task("wikitext");
  config.mutable_data()->set_folder(folder_.path());
  const RunData data = OpenRunData(config).value();
  const Batch batch = data.train->Rows(0, {0, 12}, {0, 12});
  EXPECT_EQ(batch.input_ids_BS.size(1), config.model().sequence_length());
  EXPECT_TRUE(batch.input_ids_BS.narrow(1, 1, 7).equal(batch.labels_BS.narrow(1, 0, 7)));
  const auto losses = [&](const ProcessMesh& mesh) {
    Trainer trainer(config, mesh, data.train);
    Randomize(trainer);
    return *trainer.Evaluate(*data.validation, 0);
  };
  const EvaluatedLosses reference = losses(OneRankMesh());
  // Of two sparse layers, and the z loss.
  EXPECT_GT(reference.router, config.model().balance_loss().coefficient());
  for (const int degree : Degrees()) {
    const EvaluatedLosses actual = losses(ProcessMesh::Create(World(), degree));
    EXPECT_LE(RelativeError(actual.loss, reference.loss), 1e-12);
    EXPECT_LE(RelativeError(actual.router, reference.router), 1e-12);
  }
  const TaskScore score = ScoreLosses(*data.task, reference);
  ASSERT_EQ(score.values.size(), 2u);
  EXPECT_EQ(score.values[0].name, "perplexity");
  EXPECT_NEAR(score.values[0].value, std::exp(reference.loss), 1e-9);
  EXPECT_NEAR(score.values[1].value, std::exp(reference.loss + reference.router), 1e-9);
}

}  // namespace
}  // namespace hypermoe
