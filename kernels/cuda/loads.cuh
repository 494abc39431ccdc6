// Reading features and per-feature parameters as fp32, exactly.
#ifndef BITHEADS_CUDA_LOADS_CUH
#define BITHEADS_CUDA_LOADS_CUH

#include <cuda_fp16.h>

#include "pool_and_pack_args.h"

namespace bitheads::cuda {

template <bh_dtype dtype>
__device__ inline float float_of_16_bits(uint32_t bits) {
  if (dtype == BH_BFLOAT16) return __uint_as_float(bits << 16);
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

// What a thread reads of one layer, as it lies in memory; `load` and `floats` are two steps so that
// many loads can be on their way before the first is needed.
template <bh_dtype dtype, Path path>
struct Chunk;

// Four or eight features with one 16-byte load.
template <bh_dtype dtype>
struct Chunk<dtype, Path::kVector> {
  static constexpr int kFeatures = lane_features(dtype, Path::kVector);
  uint4 bits;

  __device__ void load(const uint8_t *address) {
    bits = __ldg(reinterpret_cast<const uint4 *>(address));
  }

  __device__ void floats(float (&x)[kFeatures]) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int j = 0; j < kFeatures; ++j) {
      if (dtype == BH_FLOAT32) {
        x[j] = __uint_as_float(words[j]);
      } else {
        x[j] = float_of_16_bits<dtype>(words[j / 2] >> (j % 2 * 16) & 0xFFFFu);
      }
    }
  }
};

// One feature from any address: in one piece where it is aligned, byte by byte where not. All lanes
// of a warp go the same way, for their features are whole items apart.
template <bh_dtype dtype>
struct Chunk<dtype, Path::kScalar> {
  uint32_t bits;

  __device__ void load(const uint8_t *address) {
    constexpr int kBytes = dtype == BH_FLOAT32 ? 4 : 2;
    if (reinterpret_cast<uintptr_t>(address) % kBytes != 0) {
      bits = 0;
#pragma unroll
      for (int i = 0; i < kBytes; ++i) bits |= static_cast<uint32_t>(__ldg(address + i)) << 8 * i;
    } else if (dtype == BH_FLOAT32) {
      bits = __ldg(reinterpret_cast<const uint32_t *>(address));
    } else {
      bits = __ldg(reinterpret_cast<const uint16_t *>(address));
    }
  }

  __device__ void floats(float (&x)[1]) const {
    x[0] = dtype == BH_FLOAT32 ? __uint_as_float(bits) : float_of_16_bits<dtype>(bits);
  }
};

// Per-feature parameters [feature, feature + count); null stands for zeros.
template <int count>
__device__ inline void load_parameters(const float *values, int32_t feature, float (&x)[count]) {
#pragma unroll
  for (int j = 0; j < count; ++j) x[j] = 0.0f;
  if (values == nullptr) return;
  if constexpr (count == 1) {
    x[0] = __ldg(values + feature);
  } else {
#pragma unroll
    for (int j = 0; j < count; j += 4) {
      const float4 four = __ldg(reinterpret_cast<const float4 *>(values + feature + j));
      x[j] = four.x;
      x[j + 1] = four.y;
      x[j + 2] = four.z;
      x[j + 3] = four.w;
    }
  }
}

}  // namespace bitheads::cuda

#endif
