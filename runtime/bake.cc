#include "runtime/bake.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "model/ffn_parameters.h"
#include "model/hyper_generator.h"
#include "model/parameter_factory.h"
#include "parallel/flat_buffer.h"
#include "runtime/hyper_execution.h"
#include "runtime/tensor_source.h"

namespace hypermoe {
namespace {

constexpr char kPrefix[] = "hypermoe.";

absl::Status CheckBakeable(const ModelFolder& model) {
  const ModelConfig& config = model.config.model();
  const HyperConfig& hyper = model.config.hyper();
  const auto refuse = [](const std::string& what) {
    return ConfigError(absl::StrCat("--bake needs one HyperExpert for each expert of a layer, but ",
                                    what, ": export the model without --bake"));
  };
  if (config.kind() != ModelConfig::hyper) {
    return refuse(
        absl::StrCat("model.kind is ", ModelConfig::Kind_Name(config.kind()), ", which has none"));
  }
  if (hyper.baked()) return refuse("the model is baked already");
  if (config.top_k() != 1) {
    return refuse(
        absl::StrCat("model.top_k is ", config.top_k(), ", and each set of experts has its own"));
  }
  if (!SharedBySelection(hyper))
    return refuse("each token has its own (hyper.condition hidden or hyper.z one_minus_prob)");
  return absl::OkStatus();
}

// The part of `source` whose names begin with "hypermoe.", or the rest of it.
class Part : public TensorSource {
 public:
  Part(std::shared_ptr<const TensorSource> source, bool hypermoe) : source_(std::move(source)) {
    for (const auto& [name, entry] : source_->entries()) {
      if (absl::StartsWith(name, kPrefix) == hypermoe) entries_[name] = entry;
    }
  }
  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override {
    return source_->Read(name);
  }

 private:
  std::shared_ptr<const TensorSource> source_;
  std::map<std::string, TensorEntry> entries_;
};

// Both of two sources without common names.
class Joined : public TensorSource {
 public:
  Joined(std::shared_ptr<const TensorSource> first, std::shared_ptr<const TensorSource> second)
      : first_(std::move(first)), second_(std::move(second)), entries_(first_->entries()) {
    entries_.insert(second_->entries().begin(), second_->entries().end());
  }
  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override {
    return first_->entries().contains(name) ? first_->Read(name) : second_->Read(name);
  }

 private:
  std::shared_ptr<const TensorSource> first_, second_;
  std::map<std::string, TensorEntry> entries_;
};

// An expert's matrix [in, out] as a stack of one, in float64.
absl::StatusOr<at::Tensor> ReadMatrix(const TensorSource& tensors, const std::string& name,
                                      int64_t in, int64_t out, bool named_transposed) {
  ASSIGN_OR_RETURN(at::Tensor matrix, tensors.Read(name));
  if (matrix.dim() == 2 && named_transposed) matrix = matrix.t();
  if (matrix.sizes() != at::IntArrayRef{in, out}) {
    return DataError(absl::StrCat("tensor '", name, "' is not of the shape of an expert with ", in,
                                  " inputs and ", out, " outputs"));
  }
  return matrix.to(at::kDouble).unsqueeze(0);
}

// Condition weights: the embeddings of all experts of each sparse layer, of which one at a time is
// in memory.
absl::StatusOr<std::vector<at::Tensor>> EncodeExperts(const WeightEncoder& encoder,
                                                      const ModelFolder& model) {
  const ModelConfig& config = model.config.model();
  const int64_t width = config.hidden_size(), inner = config.ffn_size();
  std::vector<at::Tensor> by_layer;
  for (const int64_t block : SparseLayers(config)) {
    std::vector<at::Tensor> embeddings;
    for (int64_t expert = 0; expert < config.num_experts(); ++expert) {
      const ExpertMatrices names = NamesOfExpert(config, block, expert);
      ASSIGN_OR_RETURN(const at::Tensor up,
                       ReadMatrix(*model.tensors, names.up, width, inner, names.named_transposed));
      ASSIGN_OR_RETURN(const at::Tensor down, ReadMatrix(*model.tensors, names.down, inner, width,
                                                         names.named_transposed));
      embeddings.push_back(encoder.Encode(up, down));
    }
    by_layer.push_back(at::cat(embeddings));
  }
  return by_layer;
}

// The HyperExperts of all sparse layers, as tensors of a baked folder.
std::vector<NamedTensor> Generated(const HyperGenerator& generator, const ModelConfig& model) {
  std::vector<NamedTensor> tensors;
  const at::Tensor members_N1 = at::arange(model.num_experts(), at::kLong).unsqueeze(1);
  const at::Tensor weights_NN = generator.WeightsOfSelections(members_N1);
  const std::vector<int64_t> blocks = SparseLayers(model);
  for (int64_t layer = 0; layer < generator.num_layers(); ++layer) {
    HyperExperts experts = generator.Generate(generator.HiddenOfWeights(weights_NN, layer), layer);
    // What a learned scale multiplies is linear in these two.
    if (const at::Tensor factor = generator.Factor(layer); factor.defined()) {
      experts.up_MAD = experts.up_MAD * factor;
      if (experts.up_offset_MD.defined()) experts.up_offset_MD = experts.up_offset_MD * factor;
    }
    const std::string prefix = absl::StrCat("hypermoe.baked.", blocks[layer], ".");
    tensors.push_back({prefix + "down", experts.down_MDA});
    tensors.push_back({prefix + "up", experts.up_MAD});
    if (!experts.down_offset_MA.defined()) continue;
    tensors.push_back({prefix + "down_offset", experts.down_offset_MA});
    tensors.push_back({prefix + "up_offset", experts.up_offset_MD});
  }
  return tensors;
}

}  // namespace

absl::StatusOr<ModelFolder> BakeHyperExperts(const ModelFolder& model) {
  const at::NoGradGuard no_grad;
  RETURN_IF_ERROR(CheckBakeable(model));
  std::vector<Parameter> parameters;
  ParameterFactory factory(/*seed=*/0, at::kDouble, &parameters);
  HyperGenerator generator(model.config.hyper(), model.config.model(),
                           SparseLayers(model.config.model()), factory);
  std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  RETURN_IF_ERROR(FillParameters(Part(model.tensors, true), "the model to be baked",
                                 model.config.model().num_experts(), buffers));
  if (generator.encoder() != nullptr) {
    ASSIGN_OR_RETURN(std::vector<at::Tensor> embeddings,
                     EncodeExperts(*generator.encoder(), model));
    generator.SetExpertEmbeddings(std::move(embeddings));
  }
  ModelFolder baked = model;
  baked.config.mutable_hyper()->set_baked(true);
  if (model.config.hyper().scale() == HyperConfig::learned)
    baked.config.mutable_hyper()->set_scale(HyperConfig::unscaled);
  baked.tensors = std::make_shared<Joined>(
      std::make_shared<Part>(model.tensors, false),
      std::make_shared<TensorsInMemory>(Generated(generator, model.config.model())));
  return baked;
}

}  // namespace hypermoe
