#include "runtime/growth_report.h"

#include "absl/strings/str_format.h"
#include "model/config_values.h"
#include "runtime/model_cost.h"

namespace hypermoe {
namespace {

std::string DescribeModel(const RunConfig& config) {
  const ModelConfig& model = config.model();
  std::string text = absl::StrFormat("%s, %d parameters", ModelConfig::Kind_Name(model.kind()),
                                     CountParameters(config).total());
  if (model.kind() == ModelConfig::dense) return text;
  return absl::StrFormat("%s, %d experts in each of %d blocks, top_k %d, gates %s", text,
                         model.num_experts(), SparseLayers(model).size(), model.top_k(),
                         model.renormalize() ? "renormalised" : "not renormalised");
}

}  // namespace

std::string Describe(const GrowthReport& report) {
  std::string text = absl::StrFormat("from     %s\nto       %s\n", DescribeModel(report.from),
                                     DescribeModel(report.to));
  if (report.limits_kept) {
    absl::StrAppendFormat(
        &text,
        "limits   capacity factors raised, to %g in training and %g in evaluation, so "
        "that each expert takes as many tokens as before\n",
        report.to.model().training_capacity().factor(),
        report.to.model().evaluation_capacity().factor());
  }
  absl::StrAppendFormat(&text, "logits   differ by %.3g at most, the largest is %.4g: %s\n",
                        report.error, report.largest_logit,
                        report.WithinTolerance() ? "the same function" : "NOT the same function");
  for (const std::string& change : report.changes)
    absl::StrAppendFormat(&text, "change   %s\n", change);
  const auto line = [&](const char* name, double GrowthLosses::*loss) {
    absl::StrAppendFormat(&text, "%-16s %12.6f %12.6f %12.6f\n", name, report.before.*loss,
                          report.after.*loss, report.separated.*loss);
  };
  absl::StrAppendFormat(&text, "%-16s %12s %12s %12s\n", "loss", "before", "after", "separated");
  line("language model", &GrowthLosses::language_model);
  line("switch_balance", &GrowthLosses::balance);
  line("importance_cv2", &GrowthLosses::importance);
  line("load_cv2", &GrowthLosses::load);
  line("router_z", &GrowthLosses::router_z);
  return text;
}

}  // namespace hypermoe
