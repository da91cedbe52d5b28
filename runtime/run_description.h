// What a run says of itself before its first step.
#pragma once

#include <string>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/memory_plan.h"
#include "runtime/run_data.h"

namespace hypermoe {

// PlanMemory for rows as long as the longest of `data`.
MemoryPlan PlanMemoryOf(const RunConfig& config, const RunData& data, const ProcessMesh& mesh);

// Parameters, ranks, data, memory and execution, in lines for people.
std::string DescribeRun(const RunConfig& config, const RunData& data, const ProcessMesh& mesh,
                        int threads);

}  // namespace hypermoe
