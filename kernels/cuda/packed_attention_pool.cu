// The kernels of packed_attention_pool, by the names that packed_attention_pool_launch.h gives.
#include "packed_attention_pool.cuh"

// Two blocks per multiprocessor leave each thread 128 registers: 64 hold pooled values.
#define BH_DEFINE_KERNEL(name, quantization)                                    \
  extern "C" __global__ void __launch_bounds__(bitheads::cuda::kPoolThreads, 2) \
      name(const __grid_constant__ bitheads::cuda::AttentionPoolArgs args) {    \
    __shared__ bitheads::cuda::AttentionPoolShared<quantization> shared;        \
    bitheads::cuda::AttentionPool<quantization>(args, shared).run();            \
  }
BH_ATTENTION_POOL_KERNELS(BH_DEFINE_KERNEL)
#undef BH_DEFINE_KERNEL
