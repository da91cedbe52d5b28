// What a model folder's config.json has no words for.
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"

namespace hypermoe {

// Options of `model` that count in what it computes, in training or not, and that a reader of
// `text`, its config.json (FolderConfigText), takes to be others: "model.balance_loss.scope
// (micro_batch, read as stack_row)". Lengths of rows, initial values and the execution of
// HyperExperts are none.
std::vector<std::string> UnsaidOptions(const RunConfig& model, const std::string& text);

}  // namespace hypermoe
