// The ledger of bytes and collectives against what has to be sent: moe_systems' minimum.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "parallel/token_dispatcher.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

constexpr int64_t kStep = 3, kWidth = 16, kLayers = 2, kExperts = 6;

const Traffic& Of(const StepResult& result, Collective kind) {
  return result.traffic[static_cast<size_t>(kind)];
}

// Choices of an expert on another rank, over all ranks, layers and micro-batches of the step, from
// a model on one rank. `firsts`: first choices too for which the expert has no room.
int64_t RowsToOtherRanks(const RunConfig& config, int degree, bool firsts) {
  const TrainConfig& train = config.train();
  Trainer alone(config, OneRankMesh(), TinyRows(config));
  Randomize(alone);
  const TrainingRows rows(TinyTokens(), config.model().sequence_length(), train.batch_size(),
                          config.runtime().seed());
  int64_t sent = 0;
  for (int64_t micro = 0; micro < train.micro_batches(); ++micro) {
    const RowRange whole = RowsOfMicroBatch(train, micro, 1, 0);
    ForwardMode mode;
    mode.training = true;
    mode.key = alone.StepKey(kStep);
    const ModelOutput output =
        alone.model().Forward(rows.Rows(kStep, whole.begin, whole.end), mode);
    for (const RoutingResult& layer : output.routing) {
      for (int rank = 0; rank < World()->size(); ++rank) {
        const RowRange mine = RowsOfMicroBatch(train, micro, World()->size(), rank);
        const int64_t length = config.model().sequence_length();
        for (int64_t t = (mine.begin - whole.begin) * length; t < (mine.end - whole.begin) * length;
             ++t) {
          for (int64_t r = 0; r < config.model().top_k(); ++r) {
            const bool taken = !layer.taken_TK.defined() || layer.taken_TK[t][r].item<bool>();
            const auto expert = layer.expert_ids_TK[t][r].item<int64_t>();
            const RowRange own = ExpertsOfRank(kExperts, degree, rank % degree);
            if ((taken || (firsts && r == 0)) && (expert < own.begin || expert >= own.end)) ++sent;
          }
        }
      }
    }
  }
  return sent;
}

StepResult Gradients(const RunConfig& config, int degree, int64_t* bytes_of_parameters) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
  Trainer trainer(config, mesh, TinyRows(config));
  Randomize(trainer);
  *bytes_of_parameters = 0;
  for (const FlatBuffer& buffer : trainer.buffers()) {
    const bool expert = buffer.group() == ParameterGroup::kExpert;
    const Communicator& group = expert ? *mesh.expert_data : *mesh.world;
    if (group.size() > 1) *bytes_of_parameters += buffer.gradients().nbytes();
  }
  return trainer.ComputeGradients(kStep);
}

class RowLedgerTest : public testing::TestWithParam<std::tuple<HyperConfig::Execution, bool, int>> {
};

TEST_P(RowLedgerTest, ASparseLayerSendsItsRowsFourTimes) {
  const auto [execution, limited, top_k] = GetParam();
  for (const auto dtype : {RuntimeConfig::float32, RuntimeConfig::float64}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, kExperts, dtype);
    config.mutable_hyper()->set_execution(execution);
    config.mutable_model()->set_top_k(top_k);
    if (limited) LimitCapacity(&config);
    config.mutable_train()->set_micro_batches(3);
    const int64_t element = dtype == RuntimeConfig::float64 ? 8 : 4;
    for (const int degree : Degrees()) {
      int64_t parameter_bytes = 0;
      const StepResult result = Gradients(config, degree, &parameter_bytes);
      const bool owner = execution == HyperConfig::owner;
      const int64_t rows = RowsToOtherRanks(config, degree, /*firsts=*/owner);
      EXPECT_EQ(rows > 0, degree > 1);
      // The owner's gate goes with the row, and its gradient comes back so; for several choices the
      // number of the selection too.
      const int64_t gate = owner ? (top_k > 1 ? 2 : 1) * element : 0;
      EXPECT_EQ(Of(result, Collective::kAllToAll).bytes, rows * (4 * kWidth * element + 2 * gate))
          << "degree " << degree;
      // And in the same exchange: two and two a layer and micro-batch, and one of counts.
      EXPECT_EQ(Of(result, Collective::kAllToAll).calls, degree > 1 ? 4 * kLayers * 3 : 0);
      EXPECT_EQ(Of(result, Collective::kAllToAllCounts).calls, kLayers * 3);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Placements, RowLedgerTest,
                         testing::Combine(testing::Values(HyperConfig::source, HyperConfig::owner),
                                          testing::Bool(), testing::Values(1, 2)));

// In bfloat16 rows are half as long; the gate beside them stays float32.
TEST(LedgerTest, Bfloat16RowsAreHalfAsLong) {
  for (const auto execution : {HyperConfig::source, HyperConfig::owner}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, kExperts, RuntimeConfig::bfloat16);
    config.mutable_hyper()->set_execution(execution);
    int64_t parameter_bytes = 0;
    const StepResult result = Gradients(config, World()->size(), &parameter_bytes);
    const int64_t row = 4 * kWidth * 2 + (execution == HyperConfig::owner ? 2 * 4 : 0);
    const int64_t bytes = Of(result, Collective::kAllToAll).bytes;
    EXPECT_EQ(bytes % row, 0);
    EXPECT_LE(bytes / row, kLayers * config.train().batch_size() * 8);
    EXPECT_EQ(bytes > 0, World()->size() > 1);
  }
}

// Every collective of a step is one that has to be.
TEST(LedgerTest, NamesEveryCollectiveOfAStep) {
  RunConfig config = TinyConfig(ModelConfig::hyper, kExperts, RuntimeConfig::float32);
  constexpr int64_t kMicroBatches = 3, kStatistics = 2 * kLayers * kExperts * 8;
  config.mutable_train()->set_micro_batches(kMicroBatches);
  const int64_t world = World()->size();
  for (const int degree : Degrees()) {
    int64_t parameter_bytes = 0;
    const StepResult result = Gradients(config, degree, &parameter_bytes);
    at::Tensor all_parameter_bytes = at::full({1}, parameter_bytes, at::kLong);
    World()->AllReduceSum(all_parameter_bytes);
    // One count exchange and 2 + 2 exchanges of rows; a group of one has nothing to exchange.
    const int64_t exchanges = degree > 1 ? 4 * kLayers * kMicroBatches : 0;
    EXPECT_EQ(Of(result, Collective::kAllToAll).calls, exchanges);
    EXPECT_EQ(Of(result, Collective::kAllToAllCounts).calls, kLayers * kMicroBatches);
    const int64_t counts = (kExperts + degree - 1) / degree;  // of the rank that has the most
    EXPECT_EQ(Of(result, Collective::kAllToAllCounts).bytes,
              world * kLayers * kMicroBatches * (degree - 1) * counts * 8);
    // Router statistics of all layers once a micro-batch, and three groups of parameters.
    EXPECT_EQ(Of(result, Collective::kAllReduce).calls, kMicroBatches + kNumParameterGroups);
    EXPECT_EQ(Of(result, Collective::kAllReduce).bytes,
              (world > 1 ? world * kMicroBatches * kStatistics : 0) +
                  all_parameter_bytes.item<int64_t>());
    for (const auto none : {Collective::kReduceScatter, Collective::kAllGather,
                            Collective::kBroadcast, Collective::kBarrier}) {
      EXPECT_EQ(Of(result, none).calls, 0) << CollectiveName(none);
    }
    // Sharded: the same gradients scattered, and the values gathered.
    config.mutable_optimizer()->set_zero1(true);
    Trainer sharded(config, ProcessMesh::Create(World(), degree), TinyRows(config));
    const StepResult step = sharded.TrainStep(0);
    EXPECT_EQ(Of(step, Collective::kReduceScatter).bytes, all_parameter_bytes.item<int64_t>());
    EXPECT_EQ(Of(step, Collective::kAllGather).bytes, all_parameter_bytes.item<int64_t>());
    config.mutable_optimizer()->set_zero1(false);
  }
}

// With evenly spread tokens: 4 T h s (P - 1) / P a rank.
TEST(LedgerTest, BalancedRoutingSendsTheMinimum) {
  const int64_t ranks = World()->size(), experts = 2 * ranks, tokens = 12 * experts;
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const std::shared_ptr<Communicator> group = World()->Split("expert", 0, World()->rank());
    const TokenDispatcher dispatcher(group, experts);
    const auto plan = dispatcher.MakePlan(at::arange(tokens, at::kLong).remainder(experts));
    at::Tensor x_TD = at::full({tokens, kWidth}, 1.0, dtype).set_requires_grad(true);
    const at::Tensor y_TD =
        dispatcher.Combine(dispatcher.Dispatch(dispatcher.Permute(x_TD, plan), plan) * 2, plan);
    y_TD.sum().backward();
    EXPECT_TRUE(x_TD.grad().eq(2).all().item<bool>());
    const int64_t element = static_cast<int64_t>(x_TD.element_size());
    EXPECT_EQ(group->traffic(Collective::kAllToAll).bytes,
              4 * tokens * kWidth * element * (ranks - 1) / ranks);
    EXPECT_EQ(group->traffic(Collective::kAllToAllCounts).calls, 1);
    EXPECT_EQ(group->traffic(Collective::kAllToAll).calls, ranks > 1 ? 4 : 0);
  }
}

}  // namespace
}  // namespace hypermoe
