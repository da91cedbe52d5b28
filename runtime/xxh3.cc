#include "runtime/xxh3.h"

#include "absl/strings/str_format.h"

// The library's plain entry points are for the oldest processor it supports; these ask the
// processor what it can do. Debian's library has them on x86 only.
#ifdef HYPERMOE_XXH3_DISPATCH
#include <xxh_x86dispatch.h>
#endif

namespace hypermoe {

Xxh3::Xxh3() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }

void Xxh3::Update(const void* data, size_t size) { XXH3_128bits_update(state_.get(), data, size); }

std::string Xxh3::Digest() {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  XXH3_128bits_reset(state_.get());
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace hypermoe
