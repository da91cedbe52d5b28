// Models without their hypernetwork: the HyperExperts that it generates stand in its place.
#pragma once

#include "runtime/model_folder.h"
#include "runtime/status.h"

namespace hypermoe {

// `model` with hypermoe.baked.* in place of all other hypermoe.* tensors. They are in float64, of
// which a few small matrices are little beside experts, so that they round as the hypernetwork's
// own in whatever precision the model is used; a learned scale is multiplied into them. Needs
// memory for the hypernetwork and the HyperExperts, not for the rest of the model. Local.
// ConfigError: a model without a HyperExpert for each expert (another kind, more than one expert a
// token, condition hidden, z one_minus_prob), or a baked one. DataError as FillParameters.
absl::StatusOr<ModelFolder> BakeHyperExperts(const ModelFolder& model);

}  // namespace hypermoe
