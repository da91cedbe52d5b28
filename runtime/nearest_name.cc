#include "runtime/nearest_name.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace hypermoe {

int EditDistance(const std::string& a, const std::string& b) {
  // Rows i - 2, i - 1 and i of the table whose entry (i, j) is the distance of a's first i bytes
  // from b's first j.
  std::vector<int> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    std::swap(before_last, last);
    std::swap(last, row);
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::string NearestName(const std::string& name, const std::vector<std::string>& known) {
  std::string nearest;
  int smallest = std::numeric_limits<int>::max();
  for (const std::string& candidate : known) {
    if (const int distance = EditDistance(name, candidate); distance < smallest) {
      smallest = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace hypermoe
