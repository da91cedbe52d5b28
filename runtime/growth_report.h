// What growing a model has shown.
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"

namespace hypermoe {

// Mean losses a token, in evaluation; those of routers with their coefficients.
struct GrowthLosses {
  double language_model = 0, balance = 0, importance = 0, load = 0, router_z = 0;
};

struct GrowthReport {
  RunConfig from, to;
  std::vector<std::string> changes;       // GrowthPlan::changes: why they do not compute the same
  double error = 0;                       // the largest difference of a logit, before jitter
  double largest_logit = 0;               // of the source
  double tolerance = 0;                   // of error / largest_logit
  bool limits_kept = false;               // capacity factors were raised: KeepExpertLimits
  GrowthLosses before, after, separated;  // of the source; of the target before and after jitter
  bool WithinTolerance() const { return error <= tolerance * largest_logit; }
};

// The report for people, several lines.
std::string Describe(const GrowthReport& report);

}  // namespace hypermoe
