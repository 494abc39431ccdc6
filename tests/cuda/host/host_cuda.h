// What the kernels use of CUDA, for a plain C++ compiler: their sources run on the host unchanged.
//
// A grid runs block by block, each thread in its own fiber (block.h). Shared memory is static, so
// the compiler reports it and no launch sizes it; every block starts with all of it poisoned.
#ifndef BITHEADS_TESTS_HOST_CUDA_H
#define BITHEADS_TESTS_HOST_CUDA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <limits>
#include <type_traits>

#include "block.h"

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
// Gathered in one section, whose bounds the linker knows by these names. Only in kernels that are
// no templates.
#define __shared__ static __attribute__((section("host_cuda_shared")))
extern "C" {
extern unsigned char __start_host_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_host_cuda_shared[] __attribute__((weak, visibility("hidden")));
}

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline float2 make_float2(float x, float y) {
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
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
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

namespace host_cuda {

template <class T>
struct Shuffled {
  T value;
  int lane_mask;
};

template <class T>
void shuffle_xor(Shuffled<T> (&lanes)[kLanes]) {
  T values[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = lanes[lane].value;
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes[lane].value = values[lane ^ lanes[lane].lane_mask];
  }
}

inline void ballot(uint32_t (&lanes)[kLanes]) {
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= lanes[lane] << lane;
  for (uint32_t &value : lanes) value = bits;
}

inline void meet(uint32_t (&)[kLanes]) {}

}  // namespace host_cuda

inline void __syncwarp() {
  host_cuda::collective<uint32_t, host_cuda::meet>(0xFFFFFFFFu, 0u);
}

inline uint32_t __ballot_sync(uint32_t mask, bool predicate) {
  return host_cuda::collective<uint32_t, host_cuda::ballot>(mask, predicate ? 1u : 0u);
}

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask) {
  using Shuffled = host_cuda::Shuffled<T>;
  return host_cuda::collective<Shuffled, host_cuda::shuffle_xor<T>>(mask, {value, lane_mask}).value;
}

inline void __syncthreads() {
  host_cuda::the_block().meet_block();
}

// Result byte i is the byte of (y, x) that nibble i of the selector names.
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t chosen = selector >> 4 * i & 7u;
    result |= static_cast<uint32_t>(bytes >> 8 * chosen & 0xFFu) << 8 * i;
  }
  return result;
}

namespace host_cuda {

struct Shape {
  uint32_t grid[3];
  uint32_t block[3];
  uint32_t shared_bytes;  // dynamic shared memory
};

inline void poison_shared_memory() {
  const auto bytes = __stop_host_cuda_shared - __start_host_cuda_shared;
  memset(__start_host_cuda_shared, 0xFF, static_cast<size_t>(bytes));  // NaN as any float
}

// Runs a whole grid, one block after another.
template <class Args>
void launch(void (*kernel)(Args), const std::remove_const_t<Args> &args, const Shape &shape) {
  const uint32_t (&grid)[3] = shape.grid;
  const uint32_t (&block)[3] = shape.block;
  if (shape.shared_bytes != 0) throw std::runtime_error("no kernel takes dynamic shared memory");
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  const int num_threads = static_cast<int>(block[0] * block[1] * block[2]);
  for (uint32_t z = 0; z < grid[2]; ++z) {
    for (uint32_t y = 0; y < grid[1]; ++y) {
      for (uint32_t x = 0; x < grid[0]; ++x) {
        poison_shared_memory();
        const auto enter_thread = [&](int index) {
          const uint32_t thread = static_cast<uint32_t>(index);
          blockIdx = {x, y, z};
          threadIdx = {thread % block[0], thread / block[0] % block[1],
                       thread / block[0] / block[1]};
        };
        the_block().run(num_threads, enter_thread, [&] { kernel(args); });
      }
    }
  }
}

}  // namespace host_cuda

#endif
