// What this process takes of the machine's memory, and how its tensors take it.
#pragma once

#include <cstdint>

namespace hypermoe {

// Bytes in RAM as the kernel counts them, mapped files and shared memory included. 0 where the
// system does not tell.
struct ProcessMemory {
  int64_t resident = 0;       // now
  int64_t peak_resident = 0;  // most so far
};
ProcessMemory ReadProcessMemory();

// From now on LibTorch takes the memory of CPU tensors by malloc and aligns it itself. Its own
// posix_memalign asks glibc before 2.38 for a larger block and gives the rest back at once, after
// which a freed block is too small for the next tensor of its size, and the heap grows around such
// holes. Call at the start of the process, before other threads.
void UseMallocForTensors();

// Lets oneDNN keep few of the kernels that it compiles for each shape of a product. Rows
// of an expert differ from step to step, so most are never used again, and by default a thousand
// stay, at about 0.3 MiB each. What the environment says already
// (ONEDNN_PRIMITIVE_CACHE_CAPACITY, LRU_CACHE_CAPACITY) stands. Call at the start of the process.
void LimitKernelCaches();

}  // namespace hypermoe
