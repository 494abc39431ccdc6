// What the kernels use of CUDA, for a plain C++ compiler: their sources run on the host unchanged.
//
// A grid runs warp by warp, each lane of a warp in its own fiber. A warp collective suspends the
// lane until all 32 wait at the same one, and only then are the values exchanged: a collective
// that some lane never reaches is reported, not guessed. Shared memory and __syncthreads are not
// here, for no kernel uses them.
#ifndef BITHEADS_TESTS_HOST_CUDA_H
#define BITHEADS_TESTS_HOST_CUDA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <limits>
#include <type_traits>

#include "warp.h"

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

// Set by the executor before a lane runs on.
inline uint3 threadIdx, blockIdx, blockDim, gridDim;

// Bytes that __ldg has read, to see that everything is read once.
inline uint64_t host_cuda_loaded_bytes = 0;

template <class T>
T __ldg(const T *address) {
  host_cuda_loaded_bytes += sizeof(T);
  const T value = *address;
  asm volatile("" : : "m"(value));  // all of it: a read beyond an array must not be optimized away
  return value;
}

inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline uint32_t __brev(uint32_t bits) {
  uint32_t reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (bits >> i & 1u) << (31 - i);
  return reversed;
}

// Compiled without contraction into fused multiply-adds, each rounds once, half to even.
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}

inline uint32_t __float2uint_rn(float x) {
  if (!(x > 0.0f)) return 0;  // as the device: negative numbers and NaN are 0
  return x >= 4294967296.0f ? UINT32_MAX : static_cast<uint32_t>(rint(static_cast<double>(x)));
}

struct __half {
  unsigned short bits;
};
inline __half __ushort_as_half(unsigned short bits) {
  return {bits};
}
inline unsigned short __half_as_ushort(__half half) {
  return half.bits;
}

// From the definition of the format, not from the bit tricks of the CPU kernels.
inline float __half2float(__half half) {
  const int exponent = half.bits >> 10 & 31;
  const int fraction = half.bits & 1023;
  float x;
  if (exponent == 31) {
    x = fraction == 0 ? std::numeric_limits<float>::infinity()
                      : std::numeric_limits<float>::quiet_NaN();
  } else {
    x = exponent == 0 ? ldexpf(static_cast<float>(fraction), -24)
                      : ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
  }
  return half.bits >> 15 ? -x : x;
}

inline __half __float2half_rn(float x) {
  if (isnan(x)) return {0x7FFF};
  const unsigned sign = signbit(x) ? 0x8000u : 0u;
  const double magnitude = fabs(static_cast<double>(x));
  unsigned bits = 0x7C00u;
  if (magnitude < 65520.0) {  // halfway between the largest float16 and 2^16, which goes up
    const int exponent = magnitude < 0x1p-14 ? -14 : ilogb(magnitude);
    const unsigned steps = static_cast<unsigned>(rint(ldexp(magnitude, 10 - exponent)));
    // A subnormal is its steps; steps that reach 2048 carry into the exponent by themselves.
    bits = static_cast<unsigned>(exponent + 14) * 1024u + steps;
  }
  return {static_cast<unsigned short>(sign | bits)};
}

inline uint32_t __ballot_sync(uint32_t mask, bool predicate) {
  const uint32_t *values = host_cuda::exchange("__ballot_sync", mask, predicate ? 1u : 0u);
  uint32_t ballot = 0;
  for (int lane = 0; lane < host_cuda::kLanes; ++lane) ballot |= values[lane] << lane;
  return ballot;
}

inline uint32_t __shfl_xor_sync(uint32_t mask, uint32_t value, int lane_mask) {
  const uint32_t *values = host_cuda::exchange("__shfl_xor_sync", mask, value);
  return values[host_cuda::current_lane() ^ lane_mask];
}

namespace host_cuda {

struct Shape {
  uint32_t grid[3];
  uint32_t block[3];
  uint32_t shared_bytes;  // dynamic shared memory
};

// Runs a whole grid, one warp after another.
template <class Args>
void launch(void (*kernel)(Args), const std::remove_const_t<Args> &args, const Shape &shape) {
  const uint32_t (&grid)[3] = shape.grid;
  const uint32_t (&block)[3] = shape.block;
  if (shape.shared_bytes != 0) throw std::runtime_error("no kernel takes dynamic shared memory");
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  const uint32_t num_threads = block[0] * block[1] * block[2];
  for (uint32_t z = 0; z < grid[2]; ++z) {
    for (uint32_t y = 0; y < grid[1]; ++y) {
      for (uint32_t x = 0; x < grid[0]; ++x) {
        for (uint32_t first = 0; first < num_threads; first += kLanes) {
          const auto enter_lane = [&](int lane) {
            const uint32_t thread = first + static_cast<uint32_t>(lane);
            blockIdx = {x, y, z};
            threadIdx = {thread % block[0], thread / block[0] % block[1],
                         thread / block[0] / block[1]};
          };
          run_warp(enter_lane, [&] { kernel(args); });
        }
      }
    }
  }
}

}  // namespace host_cuda

#endif
