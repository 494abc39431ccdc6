// Integer arithmetic that host and device share.
#ifndef BITHEADS_CUDA_ROUNDING_H
#define BITHEADS_CUDA_ROUNDING_H

#include <stdint.h>

#ifdef __CUDACC__
#define BH_HOST_DEVICE __host__ __device__
#else
#define BH_HOST_DEVICE
#endif

namespace bitheads::cuda {

BH_HOST_DEVICE constexpr int64_t ceil_div(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

BH_HOST_DEVICE constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

}  // namespace bitheads::cuda

#endif
