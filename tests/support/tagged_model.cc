#include "tests/support/tagged_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <utility>

namespace hypermoe {
namespace {

constexpr AdamW::Moment kMoments[] = {AdamW::Moment::kFirst, AdamW::Moment::kSecond};

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

TaggedLayout TaggedLayoutOn(const ProcessMesh& mesh, int64_t num_experts, bool zero1,
                            at::ScalarType dtype) {
  return {num_experts, mesh.expert->size(), mesh.expert->rank(), dtype, zero1 ? &mesh : nullptr};
}

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
  mesh_ = layout.zero1 != nullptr ? *layout.zero1
                                  : ProcessMesh::Create(NewSelfCommunicator("world"), 1);
  buckets_ = MakeGradientBuckets(buffers_, mesh_, /*bucket_bytes=*/16);
  optimizer_ = std::make_unique<AdamW>(buffers_, buckets_, AdamWOptions{}, layout.zero1 != nullptr);
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

std::vector<NamedTensor> TaggedModel::Values() {
  std::vector<NamedTensor> views;
  for (const FlatBuffer& buffer : buffers_) {
    for (const Parameter* parameter : buffer.parameters()) {
      // By way of the parameter, which is what a model reads.
      for (NamedTensor& view : GlobalViews(*parameter, parameter->value))
        views.push_back(std::move(view));
    }
  }
  return views;
}

std::vector<NamedTensor> TaggedModel::Moments(size_t buffer, AdamW::Moment moment,
                                              const at::Tensor& copy) {
  const std::string prefix = moment == AdamW::Moment::kFirst ? "first " : "second ";
  std::vector<NamedTensor> views;
  for (size_t i = 0; i < buffers_[buffer].parameters().size(); ++i) {
    const Parameter& parameter = *buffers_[buffer].parameters()[i];
    for (NamedTensor& view : GlobalViews(parameter, buffers_[buffer].View(copy, i)))
      views.push_back({prefix + view.name, std::move(view.tensor)});
  }
  return views;
}

void TaggedModel::Fill(int salt, int64_t steps) {
  const at::NoGradGuard no_grad;
  const auto fill = [salt](const std::vector<NamedTensor>& views) {
    for (const NamedTensor& view : views) view.tensor.copy_(Tagged(view.name, salt, view.tensor));
  };
  fill(Values());
  for (size_t b = 0; b < buffers_.size(); ++b) {
    for (const AdamW::Moment moment : kMoments) {
      const at::Tensor copy = optimizer_->State(b, moment).clone();
      fill(Moments(b, moment, copy));
      optimizer_->SetState(b, moment, 0, copy);
    }
  }
  optimizer_->set_steps(steps);
}

std::vector<std::string> TaggedModel::WrongValues(int salt) { return Wrong(Values(), salt); }

std::vector<std::string> TaggedModel::WrongMoments(int salt) {
  std::vector<std::string> names;
  for (size_t b = 0; b < buffers_.size(); ++b) {
    for (const AdamW::Moment moment : kMoments) {
      const at::Tensor copy = optimizer_->State(b, moment).clone();
      for (const std::string& name : Wrong(Moments(b, moment, copy), salt)) names.push_back(name);
    }
  }
  return names;
}

bool TaggedModel::AllZero() {
  const auto zero = [](const at::Tensor& flat) {
    return at::equal(flat, at::zeros(flat.sizes(), flat.options()));
  };
  for (size_t b = 0; b < buffers_.size(); ++b) {
    if (!zero(buffers_[b].values())) return false;
    for (const AdamW::Moment moment : kMoments) {
      if (!zero(optimizer_->State(b, moment))) return false;
    }
  }
  return optimizer_->steps() == 0;
}

}  // namespace hypermoe
