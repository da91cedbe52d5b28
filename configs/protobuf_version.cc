// Refuses to compile against the protobuf headers that LibTorch's wheel carries (3.13).
#include <google/protobuf/stubs/common.h>

static_assert(GOOGLE_PROTOBUF_VERSION >= 3021000,
              "the system's protobuf headers (3.21 or newer) must come first in the include path");
