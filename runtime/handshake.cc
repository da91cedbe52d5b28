#include "runtime/handshake.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

constexpr char kSeparator = '\0';

std::string Shown(const std::vector<std::string>& lines, size_t index) {
  if (index >= lines.size()) return "nothing";
  return absl::StrCat("'", Printable(std::string(absl::StripAsciiWhitespace(lines[index]))), "'");
}

// "RANK'S, not REFERENCE as on rank 0", from the first line that differs.
std::string Difference(const std::string& value, const std::string& reference) {
  const std::vector<std::string> lines = absl::StrSplit(value, '\n');
  const std::vector<std::string> expected = absl::StrSplit(reference, '\n');
  size_t i = 0;
  while (i < std::min(lines.size(), expected.size()) && lines[i] == expected[i]) ++i;
  return absl::StrCat(Shown(lines, i), ", not ", Shown(expected, i), " as on rank 0");
}

}  // namespace

absl::Status CheckAlike(Communicator& world, const std::vector<SharedFact>& facts) {
  const auto append_value = [](std::string* out, const SharedFact& fact) { *out += fact.value; };
  const std::vector<std::string> texts =
      world.AllGatherText(absl::StrJoin(facts, absl::string_view(&kSeparator, 1), append_value));
  std::vector<std::string> expected = absl::StrSplit(texts[0], kSeparator);
  expected.resize(facts.size());
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    std::vector<std::string> values = absl::StrSplit(texts[rank], kSeparator);
    values.resize(facts.size());
    for (size_t i = 0; i < facts.size(); ++i) {
      if (values[i] == expected[i]) continue;
      return ConfigError(absl::StrCat("rank ", rank, " differs from rank 0 in ", facts[i].name,
                                      ": it has ", Difference(values[i], expected[i]), "; ",
                                      facts[i].remedy));
    }
  }
  return absl::OkStatus();
}

}  // namespace hypermoe
