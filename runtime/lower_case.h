// Lower case as Unicode has it, in any language alike.
#pragma once

#include <string>
#include <string_view>

namespace hypermoe {

// Every character by itself: a capital sigma becomes the one within words (the sigma at their end
// depends on its neighbours). Bytes that are no UTF-8 stay as they are.
std::string LowerCase(std::string_view text);

}  // namespace hypermoe
