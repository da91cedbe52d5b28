// What stands in for the CUDA kernels in programs for CPUs. Nothing calls it there, for their
// LibTorch makes no tensors on a GPU.
#include <c10/util/Exception.h>

#include "kernels/adamw_update_arguments.h"
#include "kernels/combine_rows_arguments.h"
#include "kernels/cross_entropy_arguments.h"
#include "kernels/keyed_dropout_arguments.h"
#include "kernels/keyed_random_arguments.h"

namespace hypermoe::cuda {
namespace {

[[noreturn]] void Refuse(const char* kernel) {
  TORCH_CHECK(false, kernel, ": this program was built without CUDA");
}

}  // namespace

void CombineRows(const CombineRowsArguments&, void*) { Refuse("CombineRows"); }
void CombineRowsBackward(const CombineRowsArguments&, const CombineRowsGradients&) {
  Refuse("CombineRowsBackward");
}
void AdamWUpdate(const AdamWUpdateArguments&) { Refuse("AdamWUpdate"); }
void CrossEntropy(const CrossEntropyArguments&, const void*, void*, void*) {
  Refuse("CrossEntropy");
}
void CrossEntropyBackward(const CrossEntropyArguments&, const void*, const void*, void*) {
  Refuse("CrossEntropyBackward");
}
void DropoutMask(const DropoutMaskArguments&) { Refuse("DropoutMask"); }
void KeyedFill(const KeyedFillArguments&) { Refuse("KeyedFill"); }

}  // namespace hypermoe::cuda
