// Small kernels that show what the host makes of a kernel's mistakes, and of mma_m16n8k16.
#ifndef BITHEADS_TESTS_SHIM_KERNELS_H
#define BITHEADS_TESTS_SHIM_KERNELS_H

#include "../../../kernels/cuda/mma.cuh"

struct ShimArgs {
  const float *input;
  float *output;
};

// output[i] = input[i + 1], through shared memory, in blocks of 64.
extern "C" __global__ void shim_rotate(const ShimArgs args) {
  __shared__ float values[64];
  values[threadIdx.x] = args.input[threadIdx.x];
  __syncthreads();
  args.output[threadIdx.x] = values[(threadIdx.x + 1) % 64];
}

extern "C" __global__ void shim_rotate_without_barrier(const ShimArgs args) {
  __shared__ float values[64];
  values[threadIdx.x] = args.input[threadIdx.x];
  args.output[threadIdx.x] = values[(threadIdx.x + 1) % 64];
}

extern "C" __global__ void shim_some_leave_before_a_barrier(const ShimArgs) {
  if (threadIdx.x >= 32) return;
  __syncthreads();
}

extern "C" __global__ void shim_warp_diverges(const ShimArgs args) {
  if (threadIdx.x % 2 == 0) args.output[0] = __shfl_xor_sync(0xFFFFFFFFu, args.input[0], 2);
}

extern "C" __global__ void shim_warp_meets_in_two_places(const ShimArgs args) {
  if (threadIdx.x % 2 == 0) {
    args.output[0] = __shfl_xor_sync(0xFFFFFFFFu, args.input[0], 2);
  } else {
    args.output[0] = static_cast<float>(__ballot_sync(0xFFFFFFFFu, true));
  }
}

// output [16, 8] = a b, of input a [16, 16] and b [16, 8].
extern "C" __global__ void shim_multiply(const ShimArgs args) {
  const int group = static_cast<int>(threadIdx.x) / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const auto halves = [&](int first, int second) {
    return static_cast<uint32_t>(__half_as_ushort(__float2half_rn(args.input[first]))) |
           static_cast<uint32_t>(__half_as_ushort(__float2half_rn(args.input[second]))) << 16;
  };
  uint32_t a[4];
  uint32_t b[2];
  for (int i = 0; i < 4; ++i) {
    const int first = (group + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    a[i] = halves(first, first + 1);
  }
  for (int i = 0; i < 2; ++i) {
    const int first = 256 + (2 * t + i * 8) * 8 + group;
    b[i] = halves(first, first + 8);
  }
  float c[4] = {};
  bitheads::cuda::mma_m16n8k16(c, a, b[0], b[1]);
  for (int i = 0; i < 4; ++i) args.output[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

#define BH_SHIM_KERNELS(X)            \
  X(shim_rotate)                      \
  X(shim_rotate_without_barrier)      \
  X(shim_some_leave_before_a_barrier) \
  X(shim_warp_diverges) X(shim_warp_meets_in_two_places) X(shim_multiply)

#endif
