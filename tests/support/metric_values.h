// Values of metrics of a few examples.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/task_metrics.h"

namespace hypermoe {

inline MeasuredExample Answered(const std::string& answer,
                                const std::vector<std::string>& references,
                                const std::string& group = "") {
  MeasuredExample example;
  example.answer = answer;
  example.references = references;
  example.group = group;
  return example;
}

inline std::unique_ptr<Metric> Prepared(const std::string& name,
                                        const std::vector<MeasuredExample>& examples,
                                        bool stemmer = false) {
  MetricOptions options;
  options.stemmer = stemmer;
  return FindMetric(name)->prepare(examples, options);
}

// Of each example once.
inline double MetricOf(const std::string& name, const std::vector<MeasuredExample>& examples,
                       bool stemmer = false) {
  return Prepared(name, examples, stemmer)->Value(std::vector<int32_t>(examples.size(), 1));
}

}  // namespace hypermoe
