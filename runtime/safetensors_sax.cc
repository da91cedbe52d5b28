#include "runtime/safetensors_sax.h"

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

constexpr char kMetadataKey[] = "__metadata__";
constexpr int kMaxDepth = 100;  // of values in unknown fields, which are skipped

// Where in the header the next event belongs.
enum class Place {
  kTop,            // the object itself
  kRoot,           // a name, or the end
  kTensorValue,    // {dtype, shape, data_offsets}
  kMetadataValue,  // {text: text}, or null
  kMetadata,       // a key, or the end
  kMetadataText,
  kTensor,  // a field, or the end
  kDtype,
  kArray,   // the [ of shape or data_offsets
  kNumber,  // a number of it, or its ]
  kSkip,    // the value of a field that is not ours: ignored, as the reference does
};

class HeaderSax : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderSax(SafetensorsHeader* header) : header_(header) {}

  const std::string& error() const { return error_; }

  bool null() override {
    if (place_ != Place::kMetadataValue) return Scalar("null");
    place_ = Place::kRoot;
    return true;
  }
  bool boolean(bool) override { return Scalar("true or false"); }
  bool number_integer(number_integer_t value) override {
    return Scalar(absl::StrCat("the number ", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Scalar(absl::StrCat("the number ", Printable(text)));
  }
  bool binary(binary_t&) override { return Scalar("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kNumber) return Scalar(absl::StrCat("the number ", value));
    numbers_->push_back(value);
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::kDtype) {
      entry_->dtype = text;
      place_ = Place::kTensor;
    } else if (place_ == Place::kMetadataText) {
      *text_ = text;
      place_ = Place::kMetadata;
    } else {
      return Scalar(absl::StrCat("the text '", Printable(text), "'"));
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kTop) {
      place_ = Place::kRoot;
    } else if (place_ == Place::kTensorValue) {
      place_ = Place::kTensor;
    } else if (place_ == Place::kMetadataValue) {
      place_ = Place::kMetadata;
    } else {
      return Open("an object");
    }
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::kRoot) return Name(key);
    if (place_ == Place::kTensor) return Field(key);
    if (place_ == Place::kMetadata) {
      const auto [position, inserted] = header_->metadata.try_emplace(key);
      if (!inserted) return Fail(absl::StrCat("metadata key '", Printable(key), "' stands twice"));
      text_ = &position->second;
      place_ = Place::kMetadataText;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kSkip) return Close();
    if (place_ == Place::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!seen_.contains(field)) return Fail(absl::StrCat("no field '", field, "'"));
      }
      if (offsets_.size() != 2)
        return Fail(absl::StrCat("data_offsets has ", offsets_.size(), " numbers, expected 2"));
      entry_->begin = offsets_[0];
      entry_->end = offsets_[1];
    }
    place_ = Place::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kArray) return Open("an array");
    place_ = Place::kNumber;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kSkip) return Close();
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception& error) override {
    // The library's text begins with its own "[json.exception...] parse error at ...: ".
    const std::string what = error.what();
    const size_t colon = what.find(": ");
    error_ = absl::StrCat("header is not JSON at its byte ", position, ": ",
                          Printable(colon == std::string::npos ? what : what.substr(colon + 2)));
    return false;
  }

 private:
  bool Fail(const std::string& reason) {
    const bool in_tensor = place_ != Place::kTop && place_ != Place::kRoot &&
                           place_ != Place::kMetadata && place_ != Place::kMetadataValue &&
                           place_ != Place::kMetadataText;
    error_ = in_tensor ? absl::StrCat("tensor '", Printable(name_), "': ", reason) : reason;
    return false;
  }

  bool Unexpected(const std::string& what) {
    switch (place_) {
      case Place::kTop:
        return Fail(absl::StrCat("header is ", what, ", expected an object"));
      case Place::kTensorValue:
        return Fail(absl::StrCat("is ", what, ", expected an object"));
      case Place::kMetadataValue:
        return Fail(absl::StrCat(kMetadataKey, " is ", what, ", expected an object"));
      case Place::kMetadataText:
        return Fail(absl::StrCat("metadata holds ", what, ", expected only texts"));
      case Place::kDtype:
        return Fail(absl::StrCat("dtype is ", what, ", expected a text"));
      default:
        return Fail(absl::StrCat(array_name_, " holds ", what,
                                 ", expected an array of non-negative integers"));
    }
  }

  bool Scalar(const std::string& what) {
    if (place_ != Place::kSkip) return Unexpected(what);
    if (depth_ == 0) place_ = Place::kTensor;
    return true;
  }

  bool Open(const char* what) {
    if (place_ != Place::kSkip) return Unexpected(what);
    if (++depth_ > kMaxDepth) return Fail(absl::StrCat("nested deeper than ", kMaxDepth));
    return true;
  }

  bool Close() {
    if (--depth_ == 0) place_ = Place::kTensor;
    return true;
  }

  bool Name(const std::string& name) {
    if (name == kMetadataKey) {
      if (seen_metadata_) return Fail(absl::StrCat(kMetadataKey, " stands twice"));
      seen_metadata_ = true;
      place_ = Place::kMetadataValue;
      return true;
    }
    const auto [position, inserted] = header_->tensors.try_emplace(name);
    if (!inserted) return Fail(absl::StrCat("tensor '", Printable(name), "' stands twice"));
    name_ = name;
    entry_ = &position->second;
    offsets_.clear();
    seen_.clear();
    place_ = Place::kTensorValue;
    return true;
  }

  bool Field(const std::string& field) {
    if (field != "dtype" && field != "shape" && field != "data_offsets") {
      place_ = Place::kSkip;
      depth_ = 0;
      return true;
    }
    if (!seen_.insert(field).second) return Fail(absl::StrCat("field '", field, "' stands twice"));
    place_ = field == "dtype" ? Place::kDtype : Place::kArray;
    numbers_ = field == "shape" ? &entry_->shape : &offsets_;
    array_name_ = field;
    return true;
  }

  SafetensorsHeader* header_;
  Place place_ = Place::kTop;
  std::string error_;
  bool seen_metadata_ = false;
  // Of the tensor at hand.
  std::string name_;
  SafetensorsEntry* entry_ = nullptr;
  std::vector<uint64_t> offsets_;
  std::set<std::string> seen_;
  std::vector<uint64_t>* numbers_ = nullptr;
  std::string array_name_;
  std::string* text_ = nullptr;
  int depth_ = 0;
};

}  // namespace

std::string ParseSafetensorsJson(const char* text, size_t size, SafetensorsHeader* header) {
  // The JSON library takes a NUL byte, which JSON has nowhere, for the end of the text.
  if (std::memchr(text, '\0', size) != nullptr) return "header is not JSON: it holds a NUL byte";
  // It also skips a byte order mark, which neither JSON nor the reference allows.
  if (size >= 3 && std::string(text, 3) == "\xEF\xBB\xBF")
    return "header begins with a byte order mark";
  HeaderSax sax(header);
  if (nlohmann::json::sax_parse(text, text + size, &sax)) return "";
  return sax.error();
}

}  // namespace hypermoe
