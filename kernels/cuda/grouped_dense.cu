// The kernels of grouped_dense, by the names that grouped_dense_launch.h gives.
#include "grouped_dense.cuh"

#define BH_DEFINE_KERNEL(name, kind)                                             \
  extern "C" __global__ void __launch_bounds__(bitheads::cuda::kDenseThreads, 4) \
      name(const __grid_constant__ bitheads::cuda::GroupedDenseArgs args) {      \
    __shared__ bitheads::cuda::GroupedDenseShared shared;                        \
    bitheads::cuda::GroupedDense<kind>(args, shared).run();                      \
  }
BH_GROUPED_DENSE_KERNELS(BH_DEFINE_KERNEL)
#undef BH_DEFINE_KERNEL
