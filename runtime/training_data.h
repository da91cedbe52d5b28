// What a run trains on and what it is validated by, wherever the rows come from: token files
// (dataset.h) or the examples of a task (example_rows.h).
#pragma once

#include <cstdint>

#include "model/batch.h"
#include "parallel/partition.h"

namespace hypermoe {

// The rows of every batch. They are a function of the step: nothing is stored, so that a run goes
// on where it stopped. For use by several threads.
class TrainingData {
 public:
  virtual ~TrainingData() = default;
  // Rows `mine` of the global batch of `step` (from 0). They are among those of `micro_batch`, all
  // of which are as long as the longest of them: the same on every rank.
  virtual Batch Rows(int64_t step, const RowRange& micro_batch, const RowRange& mine) const = 0;
  // Labels of that batch that count.
  virtual int64_t NumLabels(int64_t step) const = 0;
  // Tokens that the model reads in the batches of steps [begin, end); of one with an encoder: that
  // the encoder reads.
  virtual int64_t NumTokens(int64_t begin, int64_t end) const = 0;
};

// Rows to validate with, numbered from 0.
class ValidationData {
 public:
  virtual ~ValidationData() = default;
  virtual int64_t size() const = 0;
  virtual int64_t num_predictions() const = 0;  // labels that count, over all rows
  // Rows i * stride for the i in `mine`, which are among those in `pass`, all of which are as long
  // as the longest of them. Row ids are the rows' numbers.
  virtual Batch Rows(const RowRange& pass, const RowRange& mine, int64_t stride) const = 0;
};

}  // namespace hypermoe
