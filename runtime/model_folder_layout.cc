#include "runtime/model_folder_layout.h"

#include <set>

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

  void Model() const {
    visit_("wte.weight", {model_.vocab_size(), width_});
    visit_("wpe.weight", {model_.sequence_length(), width_});
    const std::set<int64_t> sparse(sparse_.begin(), sparse_.end());
    for (int64_t block = 0; block < model_.num_layers(); ++block) {
      const std::string prefix = absl::StrCat("h.", block, ".");
      Norm(prefix + "ln_1");
      Matrix(prefix + "attn.c_attn", width_, 3 * width_);
      Matrix(prefix + "attn.c_proj", width_, width_);
      Norm(prefix + "ln_2");
      if (sparse.contains(block)) {
        SparseFeedForward(prefix + "mlp.");
      } else {
        FeedForward(prefix + "mlp.");
      }
    }
    Norm("ln_f");
  }

  void HyperNetwork() const {
    const int64_t experts = model_.num_experts(), embedding = hyper_.expert_embedding_dim(),
                  mlp = hyper_.mlp_hidden_dim(), selection = hyper_.selection_embedding_dim();
    const bool hidden = hyper_.condition() == HyperConfig::hidden;
    for (const std::string& scope :
         hidden ? std::vector<std::string>() : Scopes(hyper_.emb_scope()))
      visit_(absl::StrCat("hypermoe.expert_embedding.", scope, ".weight"), {experts, embedding});
    for (const std::string& scope :
         hidden ? std::vector<std::string>() : Scopes(hyper_.sel_mlp_scope())) {
      Linear(absl::StrCat("hypermoe.selection_mlp.", scope, ".0"), mlp, embedding, true);
      Linear(absl::StrCat("hypermoe.selection_mlp.", scope, ".2"), selection, mlp, true);
    }
    visit_("hypermoe.layer_embedding.weight", {model_.num_layers(), hyper_.layer_embedding_dim()});
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
    visit_(name + ".weight", {width_});
    visit_(name + ".bias", {width_});
  }

  void FeedForward(const std::string& prefix) const {
    Matrix(prefix + "c_fc", width_, inner_);
    Matrix(prefix + "c_proj", inner_, width_);
  }

  void SparseFeedForward(const std::string& prefix) const {
    visit_(prefix + "router.w_gate", {width_, model_.num_experts()});
    if (model_.router() == ModelConfig::noisy_topk)
      visit_(prefix + "router.w_noise", {width_, model_.num_experts()});
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

  std::vector<std::string> Scopes(HyperConfig::Scope scope) const {
    if (scope == HyperConfig::stack) return {"decoder"};
    if (scope == HyperConfig::model) return {"model"};
    std::vector<std::string> names;
    for (const int64_t layer : sparse_) names.push_back(absl::StrCat(layer));
    return names;
  }

  const ModelConfig& model_;
  const HyperConfig& hyper_;
  int64_t width_, inner_;
  std::vector<int64_t> sparse_;
  const TensorVisitor& visit_;
};

}  // namespace

void ForEachFolderTensor(const RunConfig& config, const TensorVisitor& visit) {
  const Layout layout(config, visit);
  layout.Model();
  if (config.model().kind() != ModelConfig::hyper) return;
  if (config.hyper().baked()) {
    layout.BakedHyperExperts();
  } else {
    layout.HyperNetwork();
  }
}

}  // namespace hypermoe
