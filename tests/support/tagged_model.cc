#include "tests/support/tagged_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <utility>

namespace hypermoe {
namespace {

// A number below 2^16 from the name and a 64th per element: exact in float32.
at::Tensor Tagged(const std::string& name, int salt, const at::Tensor& like) {
  uint32_t hash = 2166136261u + salt;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  const at::Tensor positions = at::arange(like.numel(), like.options());
  return positions.div(64).add(static_cast<double>(1 + hash % 65535)).view(like.sizes());
}

std::vector<std::string> Wrong(const std::vector<NamedTensor>& views, int salt) {
  std::vector<std::string> names;
  for (const NamedTensor& view : views) {
    if (!at::equal(view.tensor, Tagged(view.name, salt, view.tensor))) names.push_back(view.name);
  }
  return names;
}

}  // namespace

TaggedModel::TaggedModel(const TaggedLayout& layout)
    : layout_(layout),
      experts_(ExpertsOfRank(layout.num_experts, layout.expert_degree, layout.expert_rank)) {
  Add("wte.weight", {7, 3}, ParameterGroup::kDense);
  Add("ln_f.bias", {3}, ParameterGroup::kDense);
  Add("temperature", {}, ParameterGroup::kDense);
  Add("hypermoe.generator.model.up.weight", {4, 2}, ParameterGroup::kHyper);
  for (const char* layer : {"0", "1"}) {
    const std::string prefix = std::string("h.") + layer + ".mlp.experts.expert_{e}.c_fc.";
    Add(prefix + "weight", {experts_.size(), 3, 2}, ParameterGroup::kExpert);
    Add(prefix + "bias", {experts_.size(), 2}, ParameterGroup::kExpert);
  }
  buffers_ = MakeFlatBuffers(parameters_);
  mesh_ = ProcessMesh::Create(NewSelfCommunicator("world"), 1);
  buckets_ = MakeGradientBuckets(buffers_, mesh_, /*bucket_bytes=*/16);
  optimizer_ = std::make_unique<AdamW>(buffers_, buckets_, AdamWOptions{}, /*sharded=*/false);
}

void TaggedModel::Add(const std::string& name, std::vector<int64_t> shape, ParameterGroup group) {
  Parameter parameter;
  parameter.name = name;
  parameter.value = at::zeros(shape, layout_.dtype).set_requires_grad(true);
  parameter.group = group;
  parameter.first_expert = group == ParameterGroup::kExpert ? experts_.begin : 0;
  parameter.weight_decay = shape.size() > 1;
  parameters_.push_back(std::move(parameter));
}

std::vector<NamedTensor> TaggedModel::Views(bool moments) {
  std::vector<NamedTensor> views;
  for (size_t b = 0; b < buffers_.size(); ++b) {
    for (size_t i = 0; i < buffers_[b].parameters().size(); ++i) {
      const auto add = [&](const std::string& prefix, const at::Tensor& tensor) {
        for (const NamedTensor& view : GlobalViews(*buffers_[b].parameters()[i], tensor)) {
          views.push_back({prefix + view.name, view.tensor});
        }
      };
      if (moments) {
        add("first ", buffers_[b].View(optimizer_->Moments(b, AdamW::Moment::kFirst), i));
        add("second ", buffers_[b].View(optimizer_->Moments(b, AdamW::Moment::kSecond), i));
      } else {
        // By way of the parameter, which is what a model reads.
        add("", buffers_[b].parameters()[i]->value);
      }
    }
  }
  return views;
}

void TaggedModel::Fill(int salt, int64_t steps) {
  const at::NoGradGuard no_grad;
  for (const bool moments : {false, true}) {
    for (const NamedTensor& view : Views(moments))
      view.tensor.copy_(Tagged(view.name, salt, view.tensor));
  }
  optimizer_->set_steps(steps);
}

std::vector<std::string> TaggedModel::WrongValues(int salt) { return Wrong(Views(false), salt); }
std::vector<std::string> TaggedModel::WrongMoments(int salt) { return Wrong(Views(true), salt); }

bool TaggedModel::AllZero() {
  for (const bool moments : {false, true}) {
    for (const NamedTensor& view : Views(moments)) {
      if (!at::equal(view.tensor, at::zeros(view.tensor.sizes(), view.tensor.options())))
        return false;
    }
  }
  return optimizer_->steps() == 0;
}

}  // namespace hypermoe
