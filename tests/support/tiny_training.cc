#include "tests/support/tiny_training.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "kernels/keyed_random.h"

namespace hypermoe {
namespace {

// Fewer than the model knows, so that a few steps already learn which ones occur.
constexpr int64_t kDifferentTokens = 16;

class TinyTokenFile : public TokenFile {
 public:
  explicit TinyTokenFile(int64_t count) : count_(count) {}
  int64_t num_tokens() const override { return count_; }
  int64_t num_documents() const override { return 1; }
  void Read(int64_t begin, int64_t count, int64_t* ids) const override {
    const RandomKey key = RandomKey{11, 0}.Derive("tokens");
    for (int64_t i = 0; i < count; ++i) {
      ids[i] =
          static_cast<int64_t>(UniformAt(key, static_cast<uint64_t>(begin + i)) * kDifferentTokens);
    }
  }
  absl::Status CheckIds(int64_t) const override { return absl::OkStatus(); }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  int64_t count_;
  std::string fingerprint_ = "tiny";
};

NamedTensors Collect(Trainer& trainer, bool gradients) {
  NamedTensors result;
  for (const FlatBuffer& buffer : trainer.buffers()) {
    for (const Parameter* parameter : buffer.parameters()) {
      if (gradients && parameter->frozen) continue;
      const at::Tensor& tensor = gradients ? parameter->value.grad() : parameter->value;
      for (const NamedTensor& view : GlobalViews(*parameter, tensor))
        result[view.name] = view.tensor.clone();
    }
  }
  return result;
}

double Largest(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0 : tensor.abs().max().item<double>();
}

}  // namespace

RunConfig TinyConfig(ModelConfig::Kind kind, int num_experts, RuntimeConfig::Dtype dtype) {
  RunConfig config;
  ModelConfig& model = *config.mutable_model();
  model.set_kind(kind);
  model.set_sequence_length(8);
  model.set_num_layers(3);
  model.set_hidden_size(16);
  model.set_num_heads(2);
  model.set_ffn_size(24);
  model.set_num_experts(num_experts);
  if (kind != ModelConfig::dense) {
    model.add_sparse_layers(0);
    model.add_sparse_layers(2);
  }
  model.set_dropout(0.1);
  if (kind != ModelConfig::dense) {
    model.set_router_jitter(0.05);
    model.set_router_z_coefficient(0.01);
  }
  HyperConfig& hyper = *config.mutable_hyper();
  hyper.set_expert_embedding_dim(6);
  hyper.set_mlp_hidden_dim(7);
  hyper.set_selection_embedding_dim(5);
  hyper.set_layer_embedding_dim(3);
  hyper.set_hidden_dim(8);
  hyper.set_bottleneck_dim(4);
  config.mutable_train()->set_steps(20);
  config.mutable_train()->set_batch_size(12);
  config.mutable_optimizer()->set_warmup_steps(4);
  config.mutable_optimizer()->set_learning_rate(3e-3);
  config.mutable_runtime()->set_dtype(dtype);
  config.mutable_runtime()->set_seed(5);
  return config;
}

RunConfig TinySwitchConfig(ModelConfig::Kind kind, int num_experts, RuntimeConfig::Dtype dtype) {
  RunConfig config = TinyConfig(kind, num_experts, dtype);
  ModelConfig& model = *config.mutable_model();
  model.set_family(ModelConfig::switch_transformers);
  model.clear_sparse_layers();
  model.set_num_layers(2);
  model.set_num_decoder_layers(3);
  model.set_vocab_size(384);  // the byte tokenizer's ids and sentinels, and more
  model.set_end_id(256);
  model.set_head_size(6);
  model.set_activation(ModelConfig::relu);
  model.set_relative_buckets(6);
  model.set_relative_max_distance(8);
  if (kind != ModelConfig::dense) model.set_expert_dropout(0.3);
  config.mutable_hyper()->set_share(HyperConfig::stack);
  return config;
}

RunConfig TinyConfigOf(ModelConfig::Family family, ModelConfig::Kind kind, int num_experts,
                       RuntimeConfig::Dtype dtype) {
  return family == ModelConfig::gpt2 ? TinyConfig(kind, num_experts, dtype)
                                     : TinySwitchConfig(kind, num_experts, dtype);
}

void LimitCapacity(RunConfig* config) {
  CapacityConfig& capacity = *config->mutable_model()->mutable_training_capacity();
  capacity.set_mode(CapacityConfig::fixed_per_row);
  capacity.set_tokens_per_row(2);
}

std::vector<WeightedTokens> TinyTokens(int64_t count) {
  return {{{std::make_shared<TinyTokenFile>(count), 0, count}, 1}};
}

std::shared_ptr<const TrainingRows> TinyRows(const RunConfig& config, int64_t count) {
  return std::make_shared<const TrainingRows>(TinyTokens(count),
                                              MakeRowFormat(config.data(), config.model()).value(),
                                              config.train().batch_size(), config.runtime().seed());
}

void Randomize(Trainer& trainer) {
  for (const FlatBuffer& buffer : trainer.buffers()) {
    for (const Parameter* parameter : buffer.parameters()) {
      for (const NamedTensor& view : GlobalViews(*parameter, parameter->value)) {
        const bool router = view.name.find("w_gate") != std::string::npos ||
                            view.name.find("classifier") != std::string::npos;
        // A view may be transposed, and is filled in the order of its name's axes.
        const at::Tensor values = at::empty(view.tensor.sizes(), view.tensor.options());
        FillNormal(values, RandomKey{13, 0}.Derive(view.name), router ? 1.0 : 0.25);
        view.tensor.copy_(values);
      }
    }
  }
  trainer.model().ParametersChanged();
}

ProcessMesh OneRankMesh() {
  return ProcessMesh::Create(std::shared_ptr<Communicator>(NewSelfCommunicator("world")), 1);
}

NamedTensors Gradients(Trainer& trainer) { return Collect(trainer, true); }
NamedTensors Values(Trainer& trainer) { return Collect(trainer, false); }

NamedTensors OptimizerState(Trainer& trainer) {
  const Optimizer& optimizer = trainer.optimizer();
  NamedTensors state;
  for (size_t buffer = 0; buffer < trainer.buffers().size(); ++buffer) {
    for (size_t kind = 0; kind < optimizer.kinds().size(); ++kind) {
      const at::Tensor array = optimizer.State(buffer, kind);
      for (const NamedTensor& view : optimizer.StateViews(buffer, kind, array))
        state[optimizer.kinds()[kind] + "." + view.name] = view.tensor.clone();
    }
  }
  return state;
}

double LargestError(const NamedTensors& actual, const NamedTensors& reference) {
  double largest = 0;
  for (const auto& [name, tensor] : reference) largest = std::max(largest, Largest(tensor));
  double error = 0;
  for (const auto& [name, tensor] : actual) {
    const auto found = reference.find(name);
    if (found == reference.end()) return std::numeric_limits<double>::infinity();
    const double scale = std::max(Largest(found->second), 1e-3 * largest);
    error = std::max(error, Largest(tensor - found->second) / scale);
  }
  return error;
}

}  // namespace hypermoe
