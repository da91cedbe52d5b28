#include "runtime/model_folder_layout.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"

namespace hypermoe {
namespace {

class Layout {
 public:
  Layout(const RunConfig& config, const TensorVisitor& visit)
      : model_(config.model()),
        hyper_(config.hyper()),
        width_(model_.hidden_size()),
        inner_(model_.ffn_size()),
        sparse_(SparseLayers(model_)),
        visit_(visit) {}

  void Gpt2() const {
    visit_("wte.weight", {model_.vocab_size(), width_});
    visit_("wpe.weight", {model_.sequence_length(), width_});
    for (int64_t block = 0; block < model_.num_layers(); ++block) {
      const std::string prefix = absl::StrCat("h.", block, ".");
      Norm(prefix + "ln_1");
      Matrix(prefix + "attn.c_attn", width_, 3 * width_);
      Matrix(prefix + "attn.c_proj", width_, width_);
      Norm(prefix + "ln_2");
      SubLayer(block, prefix + "mlp.");
    }
    Norm("ln_f");
  }

  void EncoderDecoder() const {
    const int64_t ids = model_.vocab_size();
    if (model_.tie_embeddings()) {
      visit_("shared.weight", {ids, width_});
    } else {
      for (const char* name : {"encoder.embed_tokens", "decoder.embed_tokens", "lm_head"})
        visit_(absl::StrCat(name, ".weight"), {ids, width_});
    }
    for (int64_t block = 0; block < EncoderBlocks(model_); ++block) EncoderBlock(block);
    RmsNorm("encoder.final_layer_norm");
    for (int64_t block = 0; block < DecoderBlocks(model_); ++block) DecoderBlock(block);
    RmsNorm("decoder.final_layer_norm");
  }

  void HyperNetwork() const {
    const int64_t experts = model_.num_experts(), embedding = hyper_.expert_embedding_dim(),
                  mlp = hyper_.mlp_hidden_dim(), selection = hyper_.selection_embedding_dim();
    const bool hidden = hyper_.condition() == HyperConfig::hidden,
               weights = hyper_.condition() == HyperConfig::weights;
    if (weights) WeightEncoder();
    for (const std::string& scope :
         hidden || weights ? std::vector<std::string>() : Scopes(hyper_.emb_scope()))
      visit_(absl::StrCat("hypermoe.expert_embedding.", scope, ".weight"), {experts, embedding});
    for (const std::string& scope :
         hidden ? std::vector<std::string>() : Scopes(hyper_.sel_mlp_scope())) {
      Linear(absl::StrCat("hypermoe.selection_mlp.", scope, ".0"), mlp, embedding, true);
      Linear(absl::StrCat("hypermoe.selection_mlp.", scope, ".2"), selection, mlp, true);
    }
    visit_("hypermoe.layer_embedding.weight", {NumBlocks(model_), hyper_.layer_embedding_dim()});
    for (const std::string& scope : Scopes(hyper_.share())) {
      Generator(absl::StrCat("hypermoe.generator.", scope, "."), hidden ? width_ : selection);
    }
    for (const int64_t layer : sparse_) {
      if (hyper_.scale() == HyperConfig::learned)
        visit_(absl::StrCat("hypermoe.scale.", layer), {1});
    }
  }

  void BakedHyperExperts() const {
    const int64_t experts = model_.num_experts(), bottleneck = hyper_.bottleneck_dim();
    for (const int64_t layer : sparse_) {
      const std::string prefix = absl::StrCat("hypermoe.baked.", layer, ".");
      visit_(prefix + "down", {experts, width_, bottleneck});
      visit_(prefix + "up", {experts, bottleneck, width_});
      if (hyper_.gen_bias()) {
        visit_(prefix + "down_offset", {experts, bottleneck});
        visit_(prefix + "up_offset", {experts, width_});
      }
    }
  }

 private:
  // A weight [in, out] and its bias, as Hugging Face's Conv1D has them.
  void Matrix(const std::string& name, int64_t in, int64_t out) const {
    visit_(name + ".weight", {in, out});
    visit_(name + ".bias", {out});
  }

  // A weight [out, in], as Linear has it.
  void Linear(const std::string& name, int64_t out, int64_t in, bool bias) const {
    visit_(name + ".weight", {out, in});
    if (bias) visit_(name + ".bias", {out});
  }

  void Norm(const std::string& name) const {
    RmsNorm(name);
    visit_(name + ".bias", {width_});
  }
  void RmsNorm(const std::string& name) const { visit_(name + ".weight", {width_}); }

  void EncoderBlock(int64_t index) const {
    const std::string prefix = absl::StrCat("encoder.block.", index, ".layer.");
    SelfAttention(prefix, index);
    SubLayer(index, prefix + "1.mlp.");
    RmsNorm(prefix + "1.layer_norm");
  }

  void DecoderBlock(int64_t index) const {
    const std::string prefix = absl::StrCat("decoder.block.", index, ".layer.");
    SelfAttention(prefix, index);
    Attention(prefix + "1.EncDecAttention.");
    RmsNorm(prefix + "1.layer_norm");
    SubLayer(EncoderBlocks(model_) + index, prefix + "2.mlp.");
    RmsNorm(prefix + "2.layer_norm");
  }

  // The first block's table of relative positions is that of its stack.
  void SelfAttention(const std::string& prefix, int64_t index) const {
    Attention(prefix + "0.SelfAttention.");
    if (index == 0) {
      visit_(prefix + "0.SelfAttention.relative_attention_bias.weight",
             {model_.relative_buckets(), model_.num_heads()});
    }
    RmsNorm(prefix + "0.layer_norm");
  }

  void Attention(const std::string& prefix) const {
    const int64_t heads = model_.num_heads() * HeadSize(model_);
    for (const char* name : {"q", "k", "v"}) Linear(prefix + name, heads, width_, false);
    Linear(prefix + "o", width_, heads, false);
  }

  void FeedForward(const std::string& prefix) const {
    if (HasEncoder(model_)) {
      Linear(prefix + "wi", inner_, width_, false);
      Linear(prefix + "wo", width_, inner_, false);
    } else {
      Matrix(prefix + "c_fc", width_, inner_);
      Matrix(prefix + "c_proj", inner_, width_);
    }
  }

  void Router(const std::string& prefix) const {
    const int64_t experts = model_.num_experts();
    if (HasEncoder(model_))
      return Linear(prefix + "classifier", experts, width_, model_.router_bias());
    visit_(prefix + "w_gate", {width_, experts});
    if (model_.router() == ModelConfig::noisy_topk) visit_(prefix + "w_noise", {width_, experts});
  }

  // Of the block with this number in the whole model.
  void SubLayer(int64_t block, const std::string& prefix) const {
    if (!std::binary_search(sparse_.begin(), sparse_.end(), block)) return FeedForward(prefix);
    Router(prefix + "router.");
    for (int64_t expert = 0; expert < model_.num_experts(); ++expert)
      FeedForward(absl::StrCat(prefix, "experts.expert_", expert, "."));
    if (model_.kind() == ModelConfig::moe_share) FeedForward(prefix + "shared_expert.");
    if (model_.kind() == ModelConfig::adapter) {
      Linear(prefix + "adapter.down", hyper_.bottleneck_dim(), width_, true);
      Linear(prefix + "adapter.up", width_, hyper_.bottleneck_dim(), true);
    }
  }

  void Generator(const std::string& prefix, int64_t condition) const {
    const int64_t hidden = hyper_.hidden_dim(), bottleneck = hyper_.bottleneck_dim(),
                  generated = width_ * bottleneck;
    Linear(prefix + "project", hidden, condition + hyper_.layer_embedding_dim(), true);
    if (hyper_.k_norm() == HyperConfig::layernorm) {
      visit_(prefix + "norm.weight", {hidden});
      visit_(prefix + "norm.bias", {hidden});
    }
    Linear(prefix + "down", generated, hidden, hyper_.lin_bias());
    Linear(prefix + "up", generated, hidden, hyper_.lin_bias());
    if (hyper_.gen_bias()) {
      Linear(prefix + "down_offset", bottleneck, hidden, true);
      Linear(prefix + "up_offset", width_, hidden, true);
    }
  }

  void WeightEncoder() const {
    const std::vector<std::vector<int64_t>> kernels = {
        {2, 1, 5, 5}, {32, 2, 1, 1}, {32, 1, 3, 3}, {128, 32, 1, 1}};
    for (size_t n = 0; n < kernels.size(); ++n) {
      const std::string name = absl::StrCat("hypermoe.weight_encoder.", n);
      visit_(name + ".weight", kernels[n]);
      visit_(name + ".bias", {kernels[n][0]});
    }
  }

  // Stacks without a sparse block have nothing.
  std::vector<std::string> Scopes(HyperConfig::Scope scope) const {
    if (scope == HyperConfig::model) return {"model"};
    std::vector<std::string> names;
    for (const int64_t layer : sparse_) {
      const bool encoder = StackOf(model_, layer) == Stack::kEncoder;
      const std::string name = scope == HyperConfig::layer ? absl::StrCat(layer)
                               : encoder                   ? "encoder"
                                                           : "decoder";
      if (names.empty() || names.back() != name) names.push_back(name);
    }
    return names;
  }

  const ModelConfig& model_;
  const HyperConfig& hyper_;
  int64_t width_, inner_;
  std::vector<int64_t> sparse_;  // ascending
  const TensorVisitor& visit_;
};

}  // namespace

void ForEachFolderTensor(const RunConfig& config, const TensorVisitor& visit) {
  const Layout layout(config, visit);
  if (HasEncoder(config.model())) {
    layout.EncoderDecoder();
  } else {
    layout.Gpt2();
  }
  if (config.model().kind() != ModelConfig::hyper) return;
  if (config.hyper().baked()) {
    layout.BakedHyperExperts();
  } else {
    layout.HyperNetwork();
  }
}

}  // namespace hypermoe
