// Files of what models wrote and of what is right.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/score.h"
#include "runtime/task.h"

namespace hypermoe {

// The examples with what is right, from the task's own file as it is published (Task::ReadFile) or
// JSON lines with the field `reference`, a text, or `references`, texts that each count as right:
// in the words of `templates`, as a model would write them. Such a line may have an `id` and a
// `group`.
absl::StatusOr<std::vector<TaskExample>> ReadReferences(const Task& task, const std::string& path,
                                                        DataConfig::Templates templates);

// What the outputs of a file say about examples.
struct Predictions {
  std::vector<MeasuredExample> examples;
  int64_t missing = 0;  // examples without an output
  int64_t unknown = 0;  // outputs of no example, left out
};

// From JSON lines with the field `prediction` or, as `hypermoe generate` writes them, `output`; or
// from one JSON object that has a text for each id, as SQuAD's evaluation takes it. Lines with an
// `id` belong to the example of that id where the examples have ids; else the lines stand in the
// order of the examples, and must be as many. A file of which nothing belongs to an example is an
// error.
absl::StatusOr<Predictions> ReadPredictions(const Task& task, const std::string& path,
                                            const std::string& references_path,
                                            absl::Span<const TaskExample> examples,
                                            DataConfig::Templates templates);

// Of a task of plain text: JSON lines, one for each block of tokens, with `loss` (the mean of its
// tokens' cross entropies, in nats) and maybe `balance_loss`.
absl::StatusOr<Predictions> ReadBlockLosses(const std::string& path);

}  // namespace hypermoe
