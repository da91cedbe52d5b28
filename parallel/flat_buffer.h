// The parameters of one group in one piece of memory, and the gradients of those that are not
// frozen in another, so that reductions, clipping and the optimizer run over few long arrays.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/parameter.h"

namespace hypermoe {

class FlatBuffer {
 public:
  // Takes over `parameters` (all of one group, dtype and device): their values are copied into one
  // buffer and become views of it, their gradients become views of a second, zeroed one. Autograd
  // then accumulates into it in place. The Parameters must outlive this. An empty list is legal.
  // Those with weight decay are moved to the front and frozen ones, which have no gradients, to the
  // end, otherwise the order is kept: see decayed_elements(), trained_elements().
  FlatBuffer(ParameterGroup group, std::vector<Parameter*> parameters);

  ParameterGroup group() const { return group_; }
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  const at::Tensor& values() const { return values_; }            // [total elements]
  const at::Tensor& gradients() const { return gradients_; }      // [trained_elements()]
  int64_t offset(size_t index) const { return offsets_[index]; }  // of parameters()[index]
  // The first so many elements belong to parameters with weight decay, the rest to those without.
  int64_t decayed_elements() const { return decayed_elements_; }
  // The first so many elements belong to parameters that are not frozen.
  int64_t trained_elements() const { return gradients_.numel(); }
  // The part of `flat` (values; of parameters that are not frozen, gradients or moments) that
  // belongs to parameters()[index], in its shape.
  at::Tensor View(const at::Tensor& flat, size_t index) const;

  void ZeroGradients();

 private:
  ParameterGroup group_;
  std::vector<Parameter*> parameters_;
  std::vector<int64_t> offsets_;
  int64_t decayed_elements_ = 0;
  at::Tensor values_;
  at::Tensor gradients_;
};

// One buffer per group, in the order of ParameterGroup (so the hypernetwork's follows the dense
// one); empty ones too, so that every rank runs the same collectives.
std::vector<FlatBuffer> MakeFlatBuffers(std::vector<Parameter>& parameters);

}  // namespace hypermoe
