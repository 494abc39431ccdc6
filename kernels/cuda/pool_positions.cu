// The kernels of pool_positions, by the names that pool_positions_args.h gives.
#include "pool_positions.cuh"

#define BH_DEFINE_KERNEL(name, dtype)                                                \
  extern "C" __global__ void __launch_bounds__(bitheads::cuda::kPositionThreads, 12) \
      name(const __grid_constant__ bitheads::cuda::PoolPositionsArgs args) {         \
    bitheads::cuda::PoolPositions<dtype>(args).run();                                \
  }
BH_POOL_POSITIONS_KERNELS(BH_DEFINE_KERNEL)
#undef BH_DEFINE_KERNEL
