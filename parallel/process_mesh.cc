#include "parallel/process_mesh.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace hypermoe {
namespace {

// "1, 2 or 4"
std::string DivisorsText(int number) {
  std::vector<int> divisors;
  for (int d = 1; d <= number; ++d) {
    if (number % d == 0) divisors.push_back(d);
  }
  std::string text;
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (i > 0) text += i + 1 == divisors.size() ? " or " : ", ";
    text += std::to_string(divisors[i]);
  }
  return text;
}

}  // namespace

ExpertRange ExpertsOfRank(int64_t num_experts, int degree, int rank) {
  return RowsOfRank(num_experts, degree, rank);
}

int DefaultExpertDegree(int world_size, int64_t num_experts) {
  int degree = 1;
  for (int d = 2; d <= world_size && d <= num_experts; ++d) {
    if (world_size % d == 0) degree = d;
  }
  return degree;
}

ProcessMesh ProcessMesh::Create(std::shared_ptr<Communicator> world, int expert_degree) {
  TORCH_CHECK(expert_degree >= 1 && world->size() % expert_degree == 0, "mesh.expert_parallel (",
              expert_degree, ") must divide the number of ranks (", world->size(), "): set it to ",
              DivisorsText(world->size()));
  ProcessMesh mesh;
  const int rank = world->rank();
  mesh.expert = world->Split("expert", /*color=*/rank / expert_degree, /*key=*/rank);
  mesh.expert_data = world->Split("expert_data", /*color=*/rank % expert_degree, /*key=*/rank);
  mesh.world = std::move(world);
  return mesh;
}

}  // namespace hypermoe
