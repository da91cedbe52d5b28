// Parameters, moments and step count without a model around them, for tests that move them about:
// every element says which tensor it belongs to and where, so that a tensor in another's place is
// seen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/adamw.h"
#include "parallel/flat_buffer.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

struct TaggedLayout {
  int64_t num_experts = 6;
  int expert_degree = 1;
  int expert_rank = 0;
  at::ScalarType dtype = at::kFloat;
  // Whose ranks share the moments (optimizer.zero1); nullptr: each keeps all of them by itself.
  // Fill and WrongMoments are then collective over it.
  const ProcessMesh* zero1 = nullptr;
};

// Of this rank of `mesh`.
TaggedLayout TaggedLayoutOn(const ProcessMesh& mesh, int64_t num_experts, bool zero1 = false,
                            at::ScalarType dtype = at::kFloat);

class TaggedModel {
 public:
  // Holds zeros until Fill.
  explicit TaggedModel(const TaggedLayout& layout);
  TaggedModel(const TaggedModel&) = delete;
  TaggedModel& operator=(const TaggedModel&) = delete;

  std::vector<FlatBuffer>& buffers() { return buffers_; }
  AdamW& optimizer() { return *optimizer_; }

  // Sets every element to its tag, the step count to `steps`. Tags of another `salt` differ.
  void Fill(int salt, int64_t steps);
  // Names of this rank's tensors ("" for values, "first ", "second " before the name for moments)
  // with an element that is not bitwise its tag.
  std::vector<std::string> WrongValues(int salt);
  std::vector<std::string> WrongMoments(int salt);
  bool AllZero();

 private:
  void Add(const std::string& name, std::vector<int64_t> shape, ParameterGroup group);
  std::vector<NamedTensor> Values();
  // Of a copy of one buffer's moments.
  std::vector<NamedTensor> Moments(size_t buffer, AdamW::Moment moment, const at::Tensor& copy);

  TaggedLayout layout_;
  ExpertRange experts_;
  std::vector<Parameter> parameters_;
  std::vector<FlatBuffer> buffers_;
  ProcessMesh mesh_;
  std::vector<GradientBucket> buckets_;
  std::unique_ptr<AdamW> optimizer_;
};

}  // namespace hypermoe
