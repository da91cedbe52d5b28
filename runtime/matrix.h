// A small dense matrix of float64, for analyses whose numbers must be the same in every process: no
// library, no threads.
#pragma once

#include <cstdint>
#include <vector>

namespace hypermoe {

struct Matrix {
  Matrix() = default;
  Matrix(int64_t num_rows, int64_t num_columns)
      : rows(num_rows), columns(num_columns), values(static_cast<size_t>(rows * columns)) {}

  double& operator()(int64_t row, int64_t column) {
    return values[static_cast<size_t>(row * columns + column)];
  }
  double operator()(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * columns + column)];
  }

  int64_t rows = 0, columns = 0;
  std::vector<double> values;  // row by row; zero at first
};

}  // namespace hypermoe
