#include "kernels/keyed_random.h"

#include "kernels/element_type_of.h"
#include "kernels/keyed_random_arguments.h"

namespace hypermoe {
namespace {

constexpr char kName[] = "keyed random numbers";

void Fill(const at::Tensor& tensor, KeyedFillArguments in) {
  TORCH_CHECK(tensor.is_contiguous(), kName, ": the tensor of shape ", tensor.sizes(),
              " is not contiguous");
  in.element = ElementTypeOf(tensor.scalar_type(), kName);
  in.data = tensor.mutable_data_ptr();
  (tensor.is_cuda() ? cuda::KeyedFill : cpu::KeyedFill)(in);
}

void FillWhole(const at::Tensor& tensor, const RandomKey& key, int64_t begin, NumberForm form) {
  KeyedFillArguments in = {};
  in.rows = 1;
  in.width = tensor.numel();
  in.key = key;
  in.begin = begin;
  in.form = form;
  Fill(tensor, in);
}

void FillRows(const at::Tensor& tensor_BN, const RandomKey& key, const at::Tensor& row_ids_B,
              NumberForm form) {
  TORCH_CHECK(tensor_BN.dim() == 2 && row_ids_B.numel() == tensor_BN.size(0) &&
                  row_ids_B.scalar_type() == at::kLong && row_ids_B.device() == tensor_BN.device(),
              kName, ": ", row_ids_B.numel(), " row ids of ", row_ids_B.scalar_type(), " on ",
              row_ids_B.device(), " for a tensor of shape ", tensor_BN.sizes(), " on ",
              tensor_BN.device(), ", expected one int64 a row, on its device");
  const at::Tensor row_ids = row_ids_B.contiguous();
  KeyedFillArguments in = {};
  in.rows = tensor_BN.size(0);
  in.width = tensor_BN.size(1);
  in.row_ids = row_ids.const_data_ptr<int64_t>();
  in.key = key;
  in.form = form;
  Fill(tensor_BN, in);
}

NumberForm Normal(double std) { return {true, 0, std}; }
NumberForm Uniform(double low, double high) { return {false, low, high - low}; }

}  // namespace

RandomKey RandomKey::Derive(std::string_view part) const {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (unsigned char c : part) hash = (hash ^ c) * 0x100000001b3ULL;
  return Derive(hash);
}

double UniformAt(const RandomKey& key, uint64_t index) { return UniformPairAt(key, index).first; }

void FillNormal(const at::Tensor& tensor, const RandomKey& key, double std, int64_t begin) {
  FillWhole(tensor, key, begin, Normal(std));
}

void FillUniform(const at::Tensor& tensor, const RandomKey& key, double low, double high,
                 int64_t begin) {
  FillWhole(tensor, key, begin, Uniform(low, high));
}

void FillNormalRows(const at::Tensor& tensor_BN, const RandomKey& key, const at::Tensor& row_ids_B,
                    double std) {
  FillRows(tensor_BN, key, row_ids_B, Normal(std));
}

void FillUniformRows(const at::Tensor& tensor_BN, const RandomKey& key, const at::Tensor& row_ids_B,
                     double low, double high) {
  FillRows(tensor_BN, key, row_ids_B, Uniform(low, high));
}

}  // namespace hypermoe
