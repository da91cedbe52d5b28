// What `hypermoe inspect` writes and says of what it has found.
#pragma once

#include <string>

#include "runtime/inspection.h"
#include "runtime/report_folder.h"

namespace hypermoe {

constexpr char kInspectProgram[] = "hypermoe inspect";

// Page, pictures and tables.
ReportFolder ReportOf(const Inspection& found);

// Parts of it: the sections on experts' usage and on embeddings (inspection_usage.cc,
// inspection_embeddings.cc).
void AddRecordedUsage(const Inspection& found, ReportFolder* report);
void AddMeasuredUsage(const Inspection& found, ReportFolder* report);
void AddEmbeddings(const Inspection& found, ReportFolder* report);

// One JSON object: what model it is, its parameters, correlations by layer and in the mean, loads,
// and where the report is. Numbers that there are not are null.
std::string MainFigures(const Inspection& found, const std::string& output);

// Of tokens by sparse layer and expert: the largest of an expert over the mean, in the layer where
// that is largest; experts without a token.
double LoadMaxOverMean(const Matrix& tokens_LN);
int64_t UnusedExperts(const Matrix& tokens_LN);

}  // namespace hypermoe
