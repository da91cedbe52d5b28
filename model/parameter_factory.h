// Makes the parameters of a model with initial values keyed by (seed, global name, element): the
// same at every layout.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/parameter.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

struct Init {
  enum class Kind { kConstant, kNormal, kUniform };
  Kind kind = Kind::kConstant;
  double value = 0;  // the constant; the standard deviation; or the bound of (-bound, bound)

  static Init Constant(double value) { return {Kind::kConstant, value}; }
  static Init Normal(double std) { return {Kind::kNormal, std}; }
  static Init Uniform(double bound) { return {Kind::kUniform, bound}; }
};

// In which order of axes a matrix is named (parallel/parameter.h): as it is kept, [in, out], or
// transposed, [out, in].
enum class NamedAs { kKept, kTransposed };

class ParameterFactory {
 public:
  // Parameters are appended to `parameters`, leaves of this dtype and device that require grad. The
  // initial values have the same bits on every device.
  ParameterFactory(uint64_t seed, at::TensorOptions options, std::vector<Parameter>* parameters)
      : seed_(seed), options_(options), parameters_(parameters) {}

  // A replicated parameter, kDense or kHyper. Decayed if it has two or more dimensions.
  at::Tensor Make(const std::string& name, at::IntArrayRef shape, Init init,
                  ParameterGroup group = ParameterGroup::kDense, NamedAs named_as = NamedAs::kKept);
  // [experts.size(), shape...]; "{e}" in the name stands for the global expert id. Decayed if one
  // expert's tensor has two or more dimensions.
  at::Tensor MakeExperts(const std::string& name, ExpertRange experts, at::IntArrayRef shape,
                         Init init, NamedAs named_as = NamedAs::kKept);

 private:
  at::Tensor Register(Parameter parameter, const at::Tensor& value);
  void Fill(const at::Tensor& tensor, const std::string& name, Init init) const;

  uint64_t seed_;
  at::TensorOptions options_;
  std::vector<Parameter>* parameters_;
};

}  // namespace hypermoe
