#include "runtime/strict_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

// Sees every event before its value is kept, and ends the parsing by an exception.
class Watch {
 public:
  struct Refused {
    std::string reason;
  };

  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    if (depth > kMaxDepth) throw Refused{absl::StrCat("nested deeper than ", kMaxDepth)};
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second)
        throw Refused{absl::StrCat("key '", Printable(key), "' stands twice in one object")};
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

// The library's text begins with its own "[json.exception...] ".
std::string Reason(const json::exception& error) {
  const std::string what = error.what();
  const size_t end = what.find("] ");
  return Printable(end == std::string::npos ? what : what.substr(end + 2));
}

}  // namespace

absl::StatusOr<json> ParseStrictJson(const std::string& path, std::string_view text) {
  const auto invalid = [&](const std::string& reason) {
    return DataError(absl::StrCat(Printable(path), ": not valid JSON: ", reason));
  };
  // The library takes the first for the end of the text, and skips the second.
  if (text.find('\0') != std::string_view::npos) return invalid("it holds a NUL byte");
  if (text.substr(0, 3) == "\xEF\xBB\xBF") return invalid("it begins with a byte order mark");
  Watch watch;
  try {
    json value = json::parse(text.begin(), text.end(),
                             [&watch](int depth, json::parse_event_t event, const json& parsed) {
                               return watch(depth, event, parsed);
                             });
    if (!value.is_object())
      return invalid(absl::StrCat("it is ", value.type_name(), ", not an object"));
    return value;
  } catch (const json::exception& error) {
    return invalid(Reason(error));
  } catch (const Watch::Refused& refused) {
    return invalid(refused.reason);
  }
}

}  // namespace hypermoe
