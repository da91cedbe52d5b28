// What stands in for the CUDA kernels in programs for CPUs. Nothing calls it there, for their
// LibTorch makes no tensors on a GPU.
#include <c10/util/Exception.h>

#include "kernels/adamw_update_arguments.h"
#include "kernels/array_digests_arguments.h"
#include "kernels/combine_rows_arguments.h"
#include "kernels/cross_entropy_arguments.h"
#include "kernels/expert_order_arguments.h"
#include "kernels/grouped_rows_arguments.h"
#include "kernels/keyed_dropout_arguments.h"
#include "kernels/keyed_random_arguments.h"
#include "kernels/route_sums_arguments.h"
#include "kernels/route_tokens_arguments.h"
#include "kernels/sum_of_squares_arguments.h"

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
void AddBiasAndActivate(const GroupedRows&, void*, const void*, Activation, void*) {
  Refuse("AddBiasAndActivate");
}
void SumRowsOfGroups(const GroupedRows&, const void*, void*) { Refuse("SumRowsOfGroups"); }
void OrderByExpert(const ExpertOrderArguments&) { Refuse("OrderByExpert"); }
void RouteTokens(const RouteTokensSizes&, const RouteTokensArguments&) { Refuse("RouteTokens"); }
void RouteTokensBackward(const RouteTokensSizes&, const RouteTokensGradients&) {
  Refuse("RouteTokensBackward");
}
void SumRoutes(const RouteSumsArguments&) { Refuse("SumRoutes"); }
void ArrayDigests(const ArrayDigestsArguments&) { Refuse("ArrayDigests"); }
void SumOfSquares(const SumOfSquaresArguments&) { Refuse("SumOfSquares"); }
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
