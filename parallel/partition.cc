#include "parallel/partition.h"

#include <algorithm>

namespace hypermoe {

RowRange RowsOfRank(int64_t total, int size, int rank) {
  const auto begin = [&](int64_t r) { return total / size * r + std::min(r, total % size); };
  return {begin(rank), begin(rank + 1)};
}

RowRange UnitsOfRank(int64_t total, int64_t unit, int size, int rank) {
  const int64_t rows = unit > 0 ? unit : std::max<int64_t>(total, 1);
  const RowRange units = RowsOfRank((total + rows - 1) / rows, size, rank);
  return {std::min(units.begin * rows, total), std::min(units.end * rows, total)};
}

}  // namespace hypermoe
