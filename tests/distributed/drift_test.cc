// One bit that differs between copies of a tensor is found, with the tensor and the rank.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "parallel/adamw.h"
#include "parallel/replica_check.h"
#include "runtime/pretrain.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_token_file.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

RunConfig Config(bool zero1) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32);
  config.mutable_optimizer()->set_zero1(zero1);
  return config;
}

// Copies of experts too, where the world allows them beside experts on several ranks.
ProcessMesh Mesh() { return ProcessMesh::Create(World(), World()->size() == 4 ? 2 : 1); }

// Flips the lowest bit of the mantissa of one element.
void FlipBit(const at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  tensor.detach().view({-1}).narrow(0, tensor.numel() / 2, 1).view(at::kInt).bitwise_xor_(1);
}

struct Place {
  const char* name;  // of a parameter, a part of it
  ParameterGroup group;
  const char* what;  // "value", "first moment", "second moment"
};
constexpr Place kPlaces[] = {
    {"wte.weight", ParameterGroup::kDense, "value"},
    {"attn.c_attn.weight", ParameterGroup::kDense, "value"},
    {"router.w_gate", ParameterGroup::kDense, "value"},
    {"ln_f.bias", ParameterGroup::kDense, "value"},
    {"hypermoe.", ParameterGroup::kHyper, "value"},
    {"experts.expert_{e}.c_proj.bias", ParameterGroup::kExpert, "value"},
    {"ln_f.weight", ParameterGroup::kDense, "first moment"},
    {"hypermoe.", ParameterGroup::kHyper, "second moment"},
    {"experts.expert_{e}.c_fc.weight", ParameterGroup::kExpert, "second moment"},
};

// The tensor at a place as this rank holds it, and its global name: of an expert this rank's first.
NamedTensor TensorAt(const Place& place, Trainer& trainer) {
  for (size_t b = 0; b < trainer.buffers().size(); ++b) {
    const FlatBuffer& buffer = trainer.buffers()[b];
    for (size_t p = 0; p < buffer.parameters().size(); ++p) {
      const Parameter& parameter = *buffer.parameters()[p];
      if (parameter.group != place.group || parameter.name.find(place.name) == std::string::npos) {
        continue;
      }
      const std::string what = place.what;
      const size_t kind = what[0] == 'f' ? AdamW::kFirst : AdamW::kSecond;
      return GlobalViews(parameter, what == "value"
                                        ? parameter.value
                                        : buffer.View(trainer.optimizer().State(b, kind), p))
          .front();
    }
  }
  ADD_FAILURE() << place.name;
  return {};
}

// "NAME (WHAT) on rank R differs ...", or of two copies both.
std::string ExpectedStart(const Place& place, const std::string& name, int rank,
                          const ProcessMesh& mesh) {
  const int ranks = World()->size(), degree = mesh.expert->size();
  const std::string tensor = name + " (" + place.what + ") ";
  const bool expert = place.group == ParameterGroup::kExpert;
  const int copies = expert ? ranks / degree : ranks;
  if (copies > 2) {
    return tensor + "on rank " + std::to_string(rank) + " differs from that of the " +
           std::to_string(copies - 1) + " other ranks (1 tensor differs)";
  }
  const int first = expert ? rank % degree : 0, second = expert ? first + degree : 1;
  return tensor + "differs between ranks " + std::to_string(first) + ", " + std::to_string(second) +
         ",";
}

TEST(DriftTest, OneBitIsFoundWithTensorAndRank) {
  for (const bool zero1 : {false, true}) {
    const ProcessMesh mesh = Mesh();
    Trainer trainer(Config(zero1), mesh, TinyRows(Config(zero1)));
    for (int64_t step = 0; step < 3; ++step) trainer.TrainStep(step);
    const auto drift = [&] { return FindDrift(trainer.buffers(), trainer.optimizer(), mesh); };
    EXPECT_EQ(drift(), "");
    if (World()->size() == 1) continue;  // there are no copies
    for (const Place& place : kPlaces) {
      if (zero1 && std::string(place.what) != "value") continue;  // no copies of those
      for (int rank = 0; rank < World()->size(); ++rank) {
        const NamedTensor tensor = TensorAt(place, trainer);
        const std::string name = World()->AllGatherText(tensor.name)[rank];
        if (World()->rank() == rank) FlipBit(tensor.tensor);
        EXPECT_THAT(drift(), StartsWith(ExpectedStart(place, name, rank, mesh)))
            << "zero1 " << zero1;
        if (World()->rank() == rank) FlipBit(tensor.tensor);
        EXPECT_EQ(drift(), "");
      }
    }
  }
}

TEST(DriftTest, AllGroupsAreReported) {
  if (World()->size() < 4) return;
  const ProcessMesh mesh = Mesh();
  Trainer trainer(Config(false), mesh, TinyRows(Config(false)));
  // In both groups of experts, and on three of four ranks' own embeddings.
  if (World()->rank() < 2) FlipBit(TensorAt(kPlaces[5], trainer).tensor);
  if (World()->rank() > 0) FlipBit(TensorAt(kPlaces[0], trainer).tensor);
  const std::string drift = FindDrift(trainer.buffers(), trainer.optimizer(), mesh);
  EXPECT_THAT(drift, StartsWith("wte.weight (value) on rank 0 differs from that of the 3 other"));
  EXPECT_THAT(drift, HasSubstr("; h.0.mlp.experts.expert_0.c_proj.bias (value) differs between "
                               "ranks 0, 2"));
  EXPECT_THAT(drift, HasSubstr("; h.0.mlp.experts.expert_3.c_proj.bias (value) differs between "
                               "ranks 1, 3"));
}

// Runs of 12 steps in which the last rank loses a bit after step 5.
class DriftInRunTest : public testing::Test {
 protected:
  absl::Status Run(int64_t check_every, int64_t checkpoint_every) {
    PretrainOptions options;
    options.config = Config(false);
    options.config.mutable_train()->set_steps(12);
    options.config.mutable_train()->set_drift_check_every(check_every);
    options.config.mutable_checkpoint()->set_every(checkpoint_every);
    options.config.mutable_data()->add_train()->set_prefix(folder_ / "tokens");
    options.run_dir = folder_ / "run";
    WriteTinyTokenFile(folder_ / "tokens", 3000);
    options.after_step = [](int64_t taken, Trainer& trainer) {
      if (taken == 5 && World()->rank() + 1 == World()->size()) {
        FlipBit(TensorAt(kPlaces[0], trainer).tensor);
      }
    };
    return Pretrain(options, Mesh());
  }
  bool Saved(const std::string& step) const {
    return std::filesystem::exists(folder_ / ("run/checkpoints/step_000000" + step));
  }

  const SharedFolder folder_;
};

TEST_F(DriftInRunTest, IsFoundAtTheNextCheckBeforeTheSave) {
  if (World()->size() == 1) return;
  const absl::Status status = Run(/*check_every=*/3, /*checkpoint_every=*/3);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 6: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("wte.weight (value) "));
  EXPECT_TRUE(Saved("03"));
  EXPECT_FALSE(Saved("06"));
}

TEST_F(DriftInRunTest, IsFoundBeforeASaveBetweenTwoChecks) {
  if (World()->size() == 1) return;
  const absl::Status status = Run(/*check_every=*/500, /*checkpoint_every=*/7);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 7: "));
  EXPECT_FALSE(Saved("07"));
}

TEST_F(DriftInRunTest, GoesUnnoticedWithoutChecks) {
  EXPECT_TRUE(Run(/*check_every=*/0, /*checkpoint_every=*/6).ok());
  EXPECT_TRUE(Saved("06"));
  EXPECT_TRUE(Saved("12"));
}

}  // namespace
}  // namespace hypermoe
