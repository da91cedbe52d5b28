#include "runtime/memory_plan.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/config_loader.h"
#include "runtime/run_length.h"

namespace hypermoe {
namespace {

// GPT-2 small's width, 2 blocks, 8 experts; 4 rows of 256 tokens.
RunConfig Config(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"model.hidden_size=768", "model.num_heads=12",
                                  "model.ffn_size=3072",   "model.sequence_length=256",
                                  "model.num_layers=2",    "model.vocab_size=50257",
                                  "model.num_experts=8",   "train.batch_size=4"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const auto config = LoadConfig("", all);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

MemoryPlan Plan(const std::vector<std::string>& overrides, int world_size = 1, int degree = 1) {
  return PlanMemory(Config(overrides), world_size, degree);
}

constexpr int64_t kDense =
    50257 * 768 + 256 * 768 + 2 * 768 + 2 * (4 * 768 + 768 * 2304 + 2304 + 768 * 768 + 768);
constexpr int64_t kExpert = 768 * 3072 + 3072 + 3072 * 768 + 768;

TEST(PlanMemoryTest, CountsParametersGradientsAndMomentsOfARank) {
  const int64_t routers = 2 * 768 * 8;
  const MemoryPlan one = Plan({"model.kind=moe"});
  EXPECT_EQ(one.parameters, 4 * (kDense + routers + 2 * 8 * kExpert));
  EXPECT_EQ(one.gradients, one.parameters);
  EXPECT_EQ(one.moments, 2 * one.parameters);
  EXPECT_EQ(Plan({"model.kind=dense"}).parameters, 4 * (kDense + 2 * kExpert));
  EXPECT_EQ(Plan({"model.kind=dense", "runtime.dtype=float64"}).parameters,
            8 * (kDense + 2 * kExpert));
  // Experts are shared out over 4 ranks; the fifth of 5 experts makes the first rank hold 2.
  EXPECT_EQ(Plan({"model.kind=moe"}, 4, 4).parameters, 4 * (kDense + routers + 2 * 2 * kExpert));
  EXPECT_EQ(Plan({"model.kind=moe", "model.num_experts=5"}, 4, 4).parameters,
            4 * (kDense + 2 * 768 * 5 + 2 * 2 * kExpert));
}

TEST(PlanMemoryTest, Zero1SharesMomentsOverTheRanksThatHoldTheSame) {
  const int64_t replicated = kDense + 2 * 768 * 8;
  const MemoryPlan plan = Plan({"model.kind=moe", "optimizer.zero1=true"}, 8, 4);
  // Replicated ones over 8 ranks; two experts a block over 8 / 4 ranks.
  EXPECT_EQ(plan.moments, 2 * 4 * ((replicated + 7) / 8 + 2 * 2 * kExpert / 2));
  EXPECT_EQ(plan.gradients, plan.parameters);
}

// A row and a column of each matrix that is large enough, and all else: two experts of eight.
TEST(PlanMemoryTest, CountsTheSmallStateOfAdafactor) {
  const std::vector<std::string> adafactor = {"model.kind=moe", "optimizer.kind=adafactor",
                                              "train.steps=100", "checkpoint.every=10"};
  const MemoryPlan plan = Plan(adafactor, 8, 4);
  const int64_t block = 2 * 768 + (768 + 2304) + 2304 + (768 + 768) + 768 + 2 * 768 + 768 * 8;
  const int64_t expert = (768 + 3072) + 3072 + (3072 + 768) + 768;
  const int64_t other = (50257 + 768) + (256 + 768) + 2 * 768;
  EXPECT_EQ(plan.moments, 4 * (other + 2 * (block + 2 * expert)));
  EXPECT_EQ(plan.snapshot, plan.parameters + plan.moments);
  std::vector<std::string> small = adafactor;
  small.insert(small.end(), {"train.freeze=wte.*", "runtime.dtype=float64"});
  EXPECT_EQ(Plan(small, 8, 4).moments, 2 * plan.moments - 8 * (50257 + 768));
  // Where little is computed, the update of the embedding is what needs most.
  std::vector<std::string> short_rows = adafactor;
  short_rows.insert(short_rows.end(), {"model.sequence_length=2", "train.batch_size=1"});
  EXPECT_EQ(Plan(short_rows).workspace, 2 * 4 * 50257 * 768);
}

// A copy of all that the first rank holds, where checkpoints are written beside training.
TEST(PlanMemoryTest, CountsTheSnapshotOfCheckpoints) {
  const std::vector<std::string> often = {"model.kind=moe", "train.steps=100",
                                          "checkpoint.every=10"};
  const auto with = [&](const std::string& setting) {
    std::vector<std::string> all = often;
    all.push_back(setting);
    return Plan(all, 2, 1);
  };
  const MemoryPlan beside = Plan(often, 2, 1);
  EXPECT_EQ(beside.snapshot, 3 * beside.parameters);
  EXPECT_EQ(with("optimizer.zero1=true").snapshot, beside.snapshot);
  EXPECT_NE(DescribeMemory(beside).find("snapshot for checkpoints"), std::string::npos);
  EXPECT_EQ(with("checkpoint.asynchronous=false").snapshot, 0);
  // The last one alone is written without a copy.
  EXPECT_EQ(with("checkpoint.every=100").snapshot, 0);
  EXPECT_EQ(with("checkpoint.every=0").snapshot, 0);
  EXPECT_EQ(with("train.freeze=wte.*").snapshot, beside.snapshot - 2 * 4 * 50257 * 768);
  // Not in the memory of a GPU.
  const MemoryPlan gpu = with("mesh.device=cuda");
  EXPECT_EQ(gpu.snapshot, 0);
  EXPECT_EQ(gpu.host_snapshot, beside.snapshot);
  EXPECT_EQ(gpu.total(), with("checkpoint.asynchronous=false").total());
  EXPECT_NE(DescribeMemory(gpu).find("of the host's: snapshot"), std::string::npos);
}

TEST(PlanMemoryTest, CountsGeneratedMatricesWhereTheyAre) {
  const int64_t of_expert = 2 * 768 * 64 * 4;  // down and up, float32
  EXPECT_EQ(Plan({"model.kind=moe"}).hyper_experts, 0);
  EXPECT_EQ(Plan({"hyper.execution=source"}, 4, 4).hyper_experts, 2 * 2 * 8 * of_expert);
  EXPECT_EQ(Plan({"hyper.execution=owner"}, 4, 4).hyper_experts, 2 * 2 * 2 * of_expert);
  EXPECT_EQ(Plan({"hyper.execution=per_token"}, 4, 4).hyper_experts, 0);
}

TEST(PlanMemoryTest, CountsTheScratchOfReductions) {
  const auto scratch = [](const std::string& mebibytes, int world_size, int degree) {
    return Plan({"model.kind=moe", "mesh.bucket_mebibytes=" + mebibytes}, world_size, degree)
        .communication;
  };
  const int64_t bucket = 16 << 20;
  EXPECT_EQ(scratch("16", 1, 1), 0);
  // Four buckets of what all ranks hold, less this rank's own part; experts stand here alone.
  EXPECT_EQ(scratch("16", 4, 4), 4 * bucket / 4 * 3);
  // Experts too, over 2 ranks.
  EXPECT_EQ(scratch("16", 4, 2), 4 * bucket / 4 * 3 + 4 * bucket / 2);
  // Never more than there is.
  EXPECT_EQ(scratch("4096", 4, 4), (kDense + 2 * 768 * 8) * 4 / 4 * 3);
}

// At the head: the whole of a dense model's activations, written down from the code.
TEST(PlanMemoryTest, KeepsWhatADenseModelNeedsForBackward) {
  const int64_t tokens = 4 * 256, width = tokens * 768 * 4;
  const int64_t norm = 2 * width + 2 * tokens * 4;               // in, out, statistics
  const int64_t attention = norm + 4 * width + tokens * 12 * 4;  // q, k, v, out, logsumexp
  const int64_t feed_forward = norm + 2 * tokens * 3072 * 4;     // before and after GELU
  const int64_t ids = 6 * tokens * 8;
  const auto plan = [](const std::string& vocabulary) {
    return Plan({"model.kind=dense", "model.vocab_size=" + vocabulary});
  };
  // Narrow logits: the last feed-forward's backward comes after the final norm has gone. Three
  // gradients of its width, hidden rows' before and after GELU, one weight's product.
  const MemoryPlan narrow = plan("257");
  EXPECT_EQ(narrow.activations, ids + 2 * (attention + feed_forward) + tokens * 257 * 4);
  EXPECT_EQ(narrow.workspace, 3 * width + 2 * tokens * 3072 * 4 + 768 * 3072 * 4);
  // Wide ones add themselves, once, and nothing of the embedding's size.
  const MemoryPlan wide = plan("50257");
  EXPECT_EQ(wide.activations - narrow.activations, tokens * (50257 - 257) * 4);
  EXPECT_EQ(wide.workspace, narrow.workspace);
  // In between the embedding's product, which is made before it is added, is the most.
  const MemoryPlan between = plan("20000");
  EXPECT_EQ(between.activations, narrow.activations + norm + tokens * (20000 - 257) * 4);
  EXPECT_EQ(between.workspace, width + 20000 * 768 * 4);
}

// In bfloat16 weights are copied, and a product is made before it is added.
TEST(PlanMemoryTest, CountsCopiesOfWeightsInBfloat16) {
  const std::vector<std::string> dense = {"model.kind=dense", "runtime.dtype=bfloat16"};
  const MemoryPlan plan = Plan(dense);
  EXPECT_EQ(plan.parameters, Plan({"model.kind=dense"}).parameters);
  EXPECT_EQ(plan.workspace, 1024 * 768 * 2 + int64_t{50257} * 768 * 2);
  const int64_t row =
      2 * (2 * 2 + 4 + 2 * 4) * 768 * 2 + 2 * 768 * 2 + 50257 * 2;  // two blocks, norm, logits
  const int64_t per_token = 5 * 2 * 4 + 2 * 12 * 4 + 6 * 8;         // statistics, logsumexps, ids
  const int64_t copies = (2 * (4 * 768 * 768 + 2 * 768 * 3072) + 50257 * 768) * 2;
  EXPECT_EQ(plan.activations, 1024 * (row + per_token) + copies);
}

// A block that is computed again keeps its input, and what was exchanged.
TEST(PlanMemoryTest, RecomputationKeepsWhatTravelled) {
  const auto grows = [](const std::vector<std::string>& overrides, int world_size, int degree) {
    std::vector<std::string> all = {"train.recompute=blocks", "model.vocab_size=257",
                                    "model.num_layers=3"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    const MemoryPlan three = Plan(all, world_size, degree);
    all.push_back("model.num_layers=4");
    const MemoryPlan four = Plan(all, world_size, degree);
    return four.activations - three.activations;
  };
  const int64_t tokens = 4 * 256, width = tokens * 768 * 4;
  const int64_t decision = 3 * tokens * 8 * 4 + 3 * tokens * 8;
  EXPECT_EQ(grows({"model.kind=dense"}, 1, 1), width);
  EXPECT_EQ(grows({"model.kind=moe"}, 1, 1), width + decision);
  // The busiest rank receives a quarter more.
  EXPECT_EQ(grows({"model.kind=moe", "train.batch_size=8"}, 2, 2),
            width + decision + width + width * 5 / 4);
  EXPECT_EQ(grows({"model.kind=moe", "train.batch_size=8",
                   "model.training_capacity.mode=factor_per_group"},
                  2, 2),
            3 * width + decision);
}

// A block keeps, of the tokens that experts take, the rows received and returned, and hidden rows
// twice.
TEST(PlanMemoryTest, CapacityBoundsTheRowsOfExperts) {
  const auto activations = [](const std::vector<std::string>& capacity) {
    std::vector<std::string> all = {"model.kind=moe", "model.vocab_size=257"};
    for (const std::string& setting : capacity) all.push_back("model.training_capacity." + setting);
    return Plan(all).activations;
  };
  const int64_t width = 4 * 256 * 768 * 4;
  const int64_t whole = activations({"mode=factor_per_group", "factor=1"});
  EXPECT_EQ(activations({"mode=factor_per_group", "factor=2"}), whole);
  EXPECT_EQ(whole - activations({"mode=factor_per_group", "factor=0.5"}),
            2 * (2 + 2 * 4) * width / 2);
  // 8 experts of 16 tokens in a row of 256.
  EXPECT_EQ(activations({"mode=fixed_per_row", "tokens_per_row=16"}),
            activations({"mode=factor_per_group", "factor=0.5"}));
  EXPECT_EQ(activations({"mode=fixed_per_row", "tokens_per_row=64"}), whole);
}

// With few tokens the hypernetwork's own backward, at the end of a step, is the most.
TEST(PlanMemoryTest, CountsTheGradientOfAHypernetworksMatrix) {
  const MemoryPlan plan =
      Plan({"model.hidden_size=64", "model.num_heads=1", "model.ffn_size=64",
            "model.vocab_size=257", "model.sequence_length=2", "train.batch_size=1",
            "hyper.hidden_dim=1024", "hyper.execution=source"});
  EXPECT_EQ(plan.workspace, 64 * 64 * 1024 * 4);
  EXPECT_EQ(plan.activations, 6 * 2 * 8);  // ids: the graph of the model is gone
}

// Experts' shapes differ from step to step, and bfloat16 compiles for each of them most.
TEST(PlanMemoryTest, CountsCompiledKernels) {
  const auto program = [](const std::string& kind, const std::string& dtype) {
    return Plan({"model.kind=" + kind, "runtime.dtype=" + dtype}).program;
  };
  EXPECT_EQ(program("moe", "float64"), program("dense", "float64"));
  EXPECT_LT(program("dense", "float64"), program("dense", "float32"));
  EXPECT_LT(program("dense", "float32"), program("moe", "float32"));
  EXPECT_LT(program("dense", "bfloat16"), program("moe", "bfloat16"));
  EXPECT_LT(program("moe", "float32"), program("moe", "bfloat16"));
}

TEST(PlanMemoryTest, GrowsWithTheRowsOfAMicroBatchOnOneRank) {
  const auto activations = [](const std::vector<std::string>& overrides, int world_size) {
    std::vector<std::string> all = {"model.kind=moe", "train.batch_size=32"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    return Plan(all, world_size).activations;
  };
  EXPECT_EQ(activations({}, 4), activations({"train.batch_size=8"}, 1));
  EXPECT_EQ(activations({"train.micro_batches=4"}, 1), activations({"train.batch_size=8"}, 1));
  // 32 rows over 5 micro-batches, 7 in the first; over 3 ranks, 3 on the first.
  EXPECT_EQ(activations({"train.micro_batches=5"}, 3), activations({"train.batch_size=3"}, 1));
  // Capacity groups stay whole: of 4 groups of 8 rows over 3 ranks, 2 on the first.
  const auto grouped = [&](const std::string& rows, const std::string& batch, int world_size) {
    return activations({"model.training_capacity.mode=factor_per_group",
                        "model.training_capacity.group_rows=" + rows, "train.batch_size=" + batch},
                       world_size);
  };
  EXPECT_EQ(grouped("8", "32", 3), grouped("1", "16", 1));
  EXPECT_EQ(grouped("0", "32", 4), grouped("1", "32", 1));
}

TEST(PlanMemoryTest, EveryOptionSavesOrCostsWhatItShould) {
  // Deep and narrow, so that blocks outweigh the loss.
  const std::vector<std::string> deep = {"model.vocab_size=257", "model.num_layers=12",
                                         "train.batch_size=128"};
  const auto peak = [&](std::vector<std::string> overrides, int world_size = 4, int degree = 4) {
    overrides.insert(overrides.begin(), deep.begin(), deep.end());
    const MemoryPlan plan = Plan(overrides, world_size, degree);
    return plan.activations + plan.workspace;
  };
  const int64_t moe = peak({"model.kind=moe"});
  EXPECT_LT(peak({"model.kind=moe", "train.recompute=blocks"}), moe / 2);
  EXPECT_LT(peak({"model.kind=moe", "runtime.dtype=bfloat16"}), 0.7 * moe);
  EXPECT_GT(peak({"model.kind=moe", "model.dropout=0.1"}), moe);
  EXPECT_GT(peak({"model.kind=moe", "model.router_jitter=0.1"}), moe);
  EXPECT_GT(peak({"model.kind=moe_share"}), 1.3 * moe);
  EXPECT_GT(peak({"model.kind=adapter"}), moe);
  EXPECT_GT(peak({"model.kind=hyper"}), moe);
  EXPECT_LT(peak({"model.kind=hyper"}), 1.1 * moe);  // that is the idea of it
  EXPECT_GT(peak({"model.kind=hyper", "hyper.execution=per_token"}), 5 * moe);
}

TEST(PlanMemoryTest, CountsTheBlocksOfBothStacks) {
  const auto plan = [](const std::string& blocks, const std::string& decoder_blocks,
                       const std::string& more) {
    return Plan({"model.family=switch_transformers", "model.kind=dense",
                 "model.num_layers=" + blocks, "model.num_decoder_layers=" + decoder_blocks, more});
  };
  // 256 tokens of input to a row, and so many labels.
  const int64_t inputs = 4 * 256,
                labels = 4 * LabelsOfRow(Config({"model.family=switch_transformers"}));
  ASSERT_EQ(labels, 4 * 58);
  const int64_t width = 768 * 4, network = 2 * 3072 * 4, norm = 2 * width + 4;
  // Of a row of either: norm, queries and what they find, keys and values. Probabilities are kept
  // of the fewest alone, those of the decoder's rows among themselves.
  const int64_t encoder = inputs * (norm + 4 * width + norm + network);
  const int64_t decoder = labels * (norm + 4 * width + 12 * 58 * 4) + labels * (norm + 2 * width) +
                          inputs * 2 * width + labels * (norm + network);
  const MemoryPlan plain = plan("2", "2", "model.dropout=0");
  EXPECT_EQ(plan("5", "2", "model.dropout=0").activations - plain.activations, 3 * encoder);
  EXPECT_EQ(plan("2", "6", "model.dropout=0").activations - plain.activations, 4 * decoder);
  // Masks: of probabilities, of outputs and of inner rows.
  const int64_t dropped = inputs * (12 * 256 + 768 + 768 + 3072);
  EXPECT_EQ(plan("5", "2", "model.dropout=0.1").activations -
                plan("2", "2", "model.dropout=0.1").activations,
            3 * (encoder + dropped));
  EXPECT_LT(plan("5", "6", "train.recompute=blocks").activations,
            plan("5", "6", "model.dropout=0").activations / 2);
}

TEST(PlanMemoryTest, IsSaidInOneLine) {
  MemoryPlan plan;
  plan.parameters = int64_t{300} << 20;
  plan.moments = int64_t{1536} << 20;
  plan.program = 800 << 10;
  EXPECT_EQ(DescribeMemory(plan),
            "1.79 GiB: parameters 300 MiB, moments 1.50 GiB, program 800 KiB");
}

}  // namespace
}  // namespace hypermoe
