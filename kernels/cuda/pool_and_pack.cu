// The kernels of pool_and_pack, by the names that pool_and_pack_launch.h gives.
#include "pool_and_pack.cuh"

// Twelve blocks per multiprocessor leave each thread 40 registers: enough for all loads of a round
// to be on their way before the first sum (the compiler orders them so; tests/cuda checks), and no
// spills.
// __grid_constant__: the argument is read where it lies and never copied to a thread's stack.
#define BH_DEFINE_KERNEL(name, dtype, mode, weighted, path)                \
  extern "C" __global__ void __launch_bounds__(                            \
      bitheads::cuda::kWarpLanes *bitheads::cuda::kWarpsPerBlock, 12)      \
      name(const __grid_constant__ bitheads::cuda::PoolAndPackArgs args) { \
    bitheads::cuda::PoolAndPack<dtype, mode, weighted, path>(args).run();  \
  }
BH_POOL_AND_PACK_KERNELS(BH_DEFINE_KERNEL)
#undef BH_DEFINE_KERNEL
