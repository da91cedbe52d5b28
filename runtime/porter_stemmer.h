// Stems of English words, as ROUGE's stemming compares them: Porter's algorithm ("An algorithm for
// suffix stripping", 1980) with the changes that NLTK makes by default, which google-research's
// rouge uses.
#pragma once

#include <string>
#include <string_view>

namespace hypermoe {

// Of a word of lower-case ASCII letters and digits.
std::string PorterStem(std::string_view word);

}  // namespace hypermoe
