// XXH3-128 of bytes that come in pieces.
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <memory>
#include <string>

namespace hypermoe {

class Xxh3 {
 public:
  Xxh3();
  void Update(const void* data, size_t size);
  // As 32 hex digits, of all that came since the construction or the Digest before.
  std::string Digest();

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

}  // namespace hypermoe
