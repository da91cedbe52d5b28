// Types of elements, for code that LibTorch's headers are too slow for.
#pragma once

namespace hypermoe {

enum class ElementType { kFloat32, kFloat64, kBFloat16 };

}  // namespace hypermoe
