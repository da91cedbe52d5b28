#include "runtime/safetensors_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/file_util.h"
#include "runtime/safetensors_sax.h"

namespace hypermoe {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian, and data is used in place");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr uint64_t kAlignment = 8;

struct DtypeBits {
  const char* name;
  int bits;
};
constexpr std::array<DtypeBits, 22> kDtypes = {{
    {"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},
    {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},     {"I16", 16},
    {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"I32", 32}, {"U32", 32},    {"F32", 32},    {"C64", 64},        {"F64", 64},
    {"I64", 64}, {"U64", 64},
}};

absl::Status Invalid(const std::string& path, const std::string& reason) {
  return DataError(absl::StrCat(Printable(path), ": not a valid safetensors file: ", reason));
}

// Empty if the entry's dtype, shape and offsets fit together.
std::string CheckEntry(const SafetensorsEntry& entry) {
  const uint64_t bits_per_element = SafetensorsBits(entry.dtype);
  if (bits_per_element == 0) return absl::StrCat("unknown dtype '", Printable(entry.dtype), "'");
  uint64_t bits = bits_per_element;
  const std::string shape = absl::StrCat("[", absl::StrJoin(entry.shape, ","), "]");
  // In the reference's order, so that the same shapes overflow.
  uint64_t elements = 1;
  for (const uint64_t dim : entry.shape) {
    if (__builtin_mul_overflow(elements, dim, &elements))
      return absl::StrCat("shape ", shape, " overflows 64 bits");
  }
  if (__builtin_mul_overflow(elements, bits_per_element, &bits)) {
    return absl::StrCat("shape ", shape, " of ", entry.dtype, " overflows 64 bits");
  }
  if (bits % 8 != 0)
    return absl::StrCat("shape ", shape, " of ", entry.dtype, " is not a whole number of bytes");
  if (entry.begin > entry.end || entry.end - entry.begin != bits / 8) {
    return absl::StrCat("data_offsets [", entry.begin, ",", entry.end, "] do not span the ",
                        bits / 8, " bytes of shape ", shape, " of ", entry.dtype);
  }
  return "";
}

std::vector<std::pair<std::string, SafetensorsEntry>> ByOffset(const SafetensorsHeader& header) {
  std::vector<std::pair<std::string, SafetensorsEntry>> entries(header.tensors.begin(),
                                                                header.tensors.end());
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.begin, a.second.end) < std::pair(b.second.begin, b.second.end);
  });
  return entries;
}

// Tensors follow each other from 0 to the end of the file, without gap or overlap.
absl::Status CheckCoverage(const std::string& path, const SafetensorsHeader& header,
                           uint64_t data_bytes) {
  uint64_t expected = 0;
  for (const auto& [name, entry] : ByOffset(header)) {
    if (entry.begin != expected) {
      return Invalid(path, absl::StrCat("tensor '", Printable(name), "' begins at byte ",
                                        entry.begin, " of the data, expected ", expected, " (",
                                        entry.begin > expected ? "gap" : "overlap", ")"));
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    return Invalid(path,
                   absl::StrCat("the header describes ", expected, " bytes of data, the file has ",
                                data_bytes, expected > data_bytes ? " (cut off?)" : ""));
  }
  return absl::OkStatus();
}

}  // namespace

int SafetensorsBits(const std::string& dtype) {
  for (const DtypeBits& known : kDtypes) {
    if (dtype == known.name) return known.bits;
  }
  return 0;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& path, const char* data,
                                                         uint64_t size) {
  if (size < kLengthBytes)
    return Invalid(path,
                   absl::StrCat("it has ", size, " bytes, the header's length alone takes 8"));
  uint64_t length = 0;
  std::memcpy(&length, data, kLengthBytes);
  if (length > kMaxHeaderBytes) {
    return Invalid(path, absl::StrCat("header of ", length, " bytes, at most ", kMaxHeaderBytes,
                                      " are allowed"));
  }
  if (length > size - kLengthBytes) {
    return Invalid(path, absl::StrCat("header of ", length, " bytes in a file of ", size));
  }
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  const std::string error = ParseSafetensorsJson(data + kLengthBytes, length, &header);
  if (!error.empty()) return Invalid(path, error);
  for (const auto& [name, entry] : header.tensors) {
    const std::string problem = CheckEntry(entry);
    if (!problem.empty())
      return Invalid(path, absl::StrCat("tensor '", Printable(name), "': ", problem));
  }
  RETURN_IF_ERROR(CheckCoverage(path, header, size - header.data_begin));
  return header;
}

absl::StatusOr<std::string> SafetensorsHeaderBytes(const SafetensorsHeader& header) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) json["__metadata__"] = header.metadata;
  for (const auto& [name, entry] : ByOffset(header)) {
    json[name] = {
        {"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text;
  try {
    text = json.dump();
  } catch (const nlohmann::json::type_error& error) {
    return InternalError(absl::StrCat("safetensors header: ", Printable(error.what())));
  }
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return InternalError(absl::StrCat("safetensors header of ", text.size(), " bytes, at most ",
                                      kMaxHeaderBytes,
                                      " are allowed: write the tensors to several files"));
  }
  const uint64_t length = text.size();
  std::string bytes(reinterpret_cast<const char*>(&length), kLengthBytes);
  return bytes + text;
}

}  // namespace hypermoe
