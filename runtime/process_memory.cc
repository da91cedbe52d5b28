#include "runtime/process_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace hypermoe {
namespace {

// The start of malloc's block stands right before the tensor's first byte.
void FreeAligned(void* data) {
  if (data != nullptr) std::free(static_cast<void**>(data)[-1]);
}

class MallocAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, cpu};
    void* block = std::malloc(bytes + c10::gAlignment + sizeof(void*));
    TORCH_CHECK_WITH(OutOfMemoryError, block != nullptr, "cannot allocate a tensor of ", bytes,
                     " bytes");
    const uintptr_t least = reinterpret_cast<uintptr_t>(block) + sizeof(void*);
    void* data = reinterpret_cast<void*>((least + c10::gAlignment - 1) & ~(c10::gAlignment - 1));
    static_cast<void**>(data)[-1] = block;
    return {data, data, &FreeAligned, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &FreeAligned; }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
};

}  // namespace

ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key; status.ignore(1 << 20, '\n')) {
    int64_t* bytes = key == "VmRSS:"   ? &memory.resident
                     : key == "VmHWM:" ? &memory.peak_resident
                                       : nullptr;
    int64_t kibibytes = 0;
    if (bytes != nullptr && status >> kibibytes) *bytes = kibibytes * 1024;
  }
  return memory;
}

void UseMallocForTensors() {
  static MallocAllocator allocator;
  constexpr uint8_t kAboveLibTorchsOwn = 1;
  c10::SetCPUAllocator(&allocator, kAboveLibTorchsOwn);
}

void LimitKernelCaches() {
  // A dense model's shapes, forward and backward, are some thirty.
  constexpr char kKernels[] = "64";
  for (const char* name : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"}) {
    setenv(name, kKernels, /*overwrite=*/0);
  }
}

}  // namespace hypermoe
