// For functions that kernels on a GPU call too.
#pragma once

#ifdef __CUDACC__
#define HYPERMOE_HOST_DEVICE __host__ __device__
#else
#define HYPERMOE_HOST_DEVICE
#endif
