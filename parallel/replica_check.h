// Whether ranks that hold copies of the same tensors still hold the same bits.
//
// Copies start alike and are changed alike, so a difference means that a machine has miscalculated
// or memory has lost a bit, or that ranks have not done the same: nothing that training repairs.
#pragma once

#include <string>
#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/optimizer.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

// Compares digests (kernels/array_digests.h) of all values, frozen ones too, and unless the
// optimizer is sharded of its state: over the world, experts over expert_data. "" if all copies
// are the same; otherwise the first tensor that differs in each group where one does and the ranks,
// of the world, that are not like most: "h.0.attn.c_attn.weight (value) on rank 2 differs from that
// of the 3 other ranks (7 tensors differ)". Where no copies are most, all ranks are named. Only
// digests travel, and the host waits for a GPU once. Collective over the world; the same on every
// rank.
std::string FindDrift(const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer,
                      const ProcessMesh& mesh);

}  // namespace hypermoe
