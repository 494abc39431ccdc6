// The power of two by which numbers are divided before they are stored as float16.
#ifndef BITHEADS_CUDA_FLOAT16_SCALE_H
#define BITHEADS_CUDA_FLOAT16_SCALE_H

#include <cmath>

namespace bitheads::cuda {

// Exponent e such that `largest`, the largest magnitude, is in [2^14, 2^15) over 2^e: near the top
// of float16, so that small numbers beside it keep their digits. Never below -126, the smallest
// scale that is no subnormal.
inline int scale_exponent(double largest) {
  if (largest == 0) return 0;
  const int exponent = std::ilogb(largest) - 14;
  return exponent < -126 ? -126 : exponent;
}

}  // namespace bitheads::cuda

#endif
