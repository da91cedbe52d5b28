// How the ranks of a job are arranged for training: world = expert_data x expert, expert index
// fastest, so that an expert group stays within a node when ranks are placed node by node. With 8
// ranks and expert degree 4 the expert groups are {0-3} {4-7}, the expert-data groups {0,4} {1,5}
// {2,6} {3,7}.
//
//   expert       the ranks that together hold every expert once; tokens travel here
//   expert_data  the ranks that hold the same experts; expert gradients are summed here
//   world        everyone; all other gradients are summed here
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"
#include "parallel/partition.h"

namespace hypermoe {

// Half-open range of global expert ids.
using ExpertRange = RowRange;

// The experts that expert rank `rank` of `degree` holds: consecutive ids, the first num_experts %
// degree ranks one more. A rank may hold none.
ExpertRange ExpertsOfRank(int64_t num_experts, int degree, int rank);

// The largest divisor of world_size that is at most max(1, num_experts): the default expert degree.
int DefaultExpertDegree(int world_size, int64_t num_experts);

struct ProcessMesh {
  std::shared_ptr<Communicator> world;
  std::shared_ptr<Communicator> expert;
  std::shared_ptr<Communicator> expert_data;

  // Splits the world; collective. Throws c10::Error if expert_degree does not divide the world
  // size.
  static ProcessMesh Create(std::shared_ptr<Communicator> world, int expert_degree);
};

}  // namespace hypermoe
