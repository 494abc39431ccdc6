// From the arguments of bh_cuda_plan_pool_positions to a kernel's name, grid and argument. Host
// code without CUDA, so that it is tested on any machine.
#ifndef BITHEADS_CUDA_POOL_POSITIONS_LAUNCH_H
#define BITHEADS_CUDA_POOL_POSITIONS_LAUNCH_H

#include "pool_positions_args.h"
#include "rounding.h"

namespace bitheads::cuda {

struct PoolPositionsLaunch {
  const char *kernel;
  uint32_t grid[3];  // with a zero in it there is nothing to launch
  uint32_t block[3];
  uint32_t shared_bytes;
  PoolPositionsArgs args;
};

inline const char *pool_positions_kernel(bh_dtype dtype) {
#define BH_RETURN_IF_WANTED(name, its_dtype) \
  if (dtype == its_dtype) return #name;
  BH_POOL_POSITIONS_KERNELS(BH_RETURN_IF_WANTED)
#undef BH_RETURN_IF_WANTED
  return nullptr;
}

// `lengths` is the host's copy of args.lengths. Everything the pointers of `args` lead to is the
// device's and is not read.
inline bh_status plan_pool_positions(const bh_pool_positions_args &args, const int64_t *lengths,
                                     PoolPositionsLaunch *launch) {
  constexpr int64_t kMaxRows = 65535;
  constexpr int64_t kMaxDim = int64_t{1} << 30;
  constexpr int64_t kMaxSeq = int64_t{1} << 30;
  const char *kernel = pool_positions_kernel(args.dtype);
  if (kernel == nullptr || args.pooling < BH_EMBEDDING_CLS ||
      args.pooling > BH_EMBEDDING_LASTTOKEN) {
    return BH_INVALID_ARGUMENT;
  }
  if (args.rows < 0 || args.rows > kMaxRows || args.seq < 0 || args.seq > kMaxSeq || args.dim < 1 ||
      args.dim > kMaxDim || args.pooled_stride < args.dim) {
    return BH_INVALID_ARGUMENT;
  }
  if (args.rows > 0 && (args.lengths == nullptr || args.pooled == nullptr || lengths == nullptr ||
                        (args.seq > 0 && args.states.data == nullptr))) {
    return BH_INVALID_ARGUMENT;
  }
  for (int64_t row = 0; row < args.rows; ++row) {
    if (lengths[row] < 0 || lengths[row] > args.seq) return BH_INVALID_ARGUMENT;
  }
  const uintptr_t item_bytes = args.dtype == BH_FLOAT32 ? 4 : 2;
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(args.states.data) |
                              static_cast<uintptr_t>(args.states.row_stride_bytes) |
                              static_cast<uintptr_t>(args.states.token_stride_bytes);
  if (addresses % item_bytes != 0 || reinterpret_cast<uintptr_t>(args.pooled) % 4 != 0) {
    return BH_INVALID_ARGUMENT;
  }
  *launch = PoolPositionsLaunch{};
  launch->kernel = kernel;
  launch->grid[0] = static_cast<uint32_t>(ceil_div(args.dim, kPositionThreads));
  launch->grid[1] = static_cast<uint32_t>(args.rows);
  launch->grid[2] = 1;
  launch->block[0] = kPositionThreads;
  launch->block[1] = launch->block[2] = 1;
  launch->args = {static_cast<const uint8_t *>(args.states.data),
                  args.states.row_stride_bytes,
                  args.states.token_stride_bytes,
                  args.lengths,
                  args.pooled,
                  args.pooled_stride,
                  static_cast<int32_t>(args.dim),
                  args.pooling};
  return BH_OK;
}

}  // namespace bitheads::cuda

#endif
