// The tensors of a model under the names and in the shapes of the larger one that it grows into.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/adamw.h"
#include "parallel/parameter.h"
#include "runtime/growth_plan.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// What a tensor of the target is made from.
struct TensorRecipe {
  enum class Kind {
    kFresh,          // the target's initial value
    kZero,           // zeros
    kCopy,           // factor * the source's
    kFirstRows,      // the first rows of the source's
    kClonedRows,     // the source's rows, once for each clone
    kClonedColumns,  // its columns likewise
    kMix,            // own * each row + all * their sum, once for each clone
  };
  Kind kind = Kind::kCopy;
  std::string source;  // name there
  double factor = 1;
};

// The recipe of the target's tensor `name` (an expert's under its own number).
TensorRecipe RecipeOf(const GrowthPlan& plan, const std::string& name);

// The tensors of the target by `plan`, made from those of `source` on demand; sums and products in
// float64, of which dtype the result then is. For FillParameters: a tensor that the source should
// have and has not is missing here too, one that is not needed is here under its own name, and a
// shape that is wrong there is wrong here. (The noise of a router that is no longer noisy is left
// out.)
class GrownTensors : public TensorSource {
 public:
  // `target`: this rank's parameters of the target in their initial state, which must outlive this;
  // fresh tensors are theirs. `moment`: instead of values, that moment of Adam of each, under its
  // prefix in `source` and without here: by the chain rule where a parameter is scaled,
  // zero where it is fresh or mixed.
  GrownTensors(std::shared_ptr<const TensorSource> source, const GrowthPlan& plan,
               const std::vector<Parameter>& target, std::optional<AdamW::Moment> moment);

  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;
  // Whether the tensor has values that no tensor of the source has.
  bool Changes(const std::string& name) const;

 private:
  struct Made {
    TensorRecipe recipe;
    at::Tensor initial;  // the target's, of kFresh and kZero
  };
  void Add(const std::string& name, const at::Tensor& initial);
  void AddUnneeded();
  std::string SourceName(const std::string& name) const;
  TensorEntry EntryOf(const TensorRecipe& recipe, const TensorEntry& source) const;
  at::Tensor Make(const TensorRecipe& recipe, const at::Tensor& source) const;

  std::shared_ptr<const TensorSource> source_;
  GrowthPlan plan_;
  std::optional<AdamW::Moment> moment_;
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, Made> made_;
};

// Whether the tensor is the matrix from which a router's probabilities are made, of whatever
// family.
bool IsRouterMatrix(const std::string& name);

// What SeparateClones adds unless something else is asked for: too little to change what a model
// says, enough for clones to get different tokens, and so different gradients, from the first step
// on.
constexpr double kCloneJitter = 0.01;

// Adds noise of standard deviation `amount` * s to the router columns of all clones, so that they
// get different tokens; s is the root mean square of the layer's router, or 1 / sqrt(width) where
// that is zero. Keyed by (seed, layer, expert), so the same at every layout. Nothing where no
// expert has been cloned, or with amount 0. Originals get noise too: were they left out, one of
// them would have to win against all its clones, and keep a 2^(1-m)th of its tokens. Local.
void SeparateClones(const GrowthPlan& plan, double amount, uint64_t seed,
                    std::vector<Parameter>& parameters);

}  // namespace hypermoe
