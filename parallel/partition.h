// How things that every rank could have are cut into one consecutive part a rank.
#pragma once

#include <cstdint>

namespace hypermoe {

// Half-open range of rows, elements, ...
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// The part of [0, total) that rank `rank` of `size` takes: sizes differ by at most one, the first
// total % size ranks have one more, and a rank may get none.
RowRange RowsOfRank(int64_t total, int size, int rank);

// The same in whole units of `unit` consecutive rows (0: of all rows), the last of which may be
// shorter; a unit is never cut.
RowRange UnitsOfRank(int64_t total, int64_t unit, int size, int rank);

}  // namespace hypermoe
