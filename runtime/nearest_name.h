// Finds the name that a mistyped one was probably meant to be.
#pragma once

#include <string>
#include <vector>

namespace hypermoe {

// The fewest insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`, no
// byte being edited twice.
int EditDistance(const std::string& a, const std::string& b);

// The name in `known` nearest to `name`, the first of equally near ones; "" if `known` is empty.
std::string NearestName(const std::string& name, const std::vector<std::string>& known);

}  // namespace hypermoe
