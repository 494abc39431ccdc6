// What host and device share about pool_positions: its argument, its launch shape, its kernels.
#ifndef BITHEADS_CUDA_POOL_POSITIONS_ARGS_H
#define BITHEADS_CUDA_POOL_POSITIONS_ARGS_H

#include "bitheads/cuda.h"

namespace bitheads::cuda {

constexpr int kPositionThreads = 128;  // features of a block, one for each thread

// Passed by value. All pointers are the device's. The sizes that are not here are the grid's: x is
// ceil(dim / kPositionThreads), y is rows.
struct PoolPositionsArgs {
  const uint8_t *states;
  int64_t row_stride_bytes;
  int64_t token_stride_bytes;
  const int64_t *lengths;  // [rows]
  float *pooled;           // [rows, dim], pooled_stride floats from one row to the next
  int64_t pooled_stride;
  int32_t dim;
  bh_embedding_pooling pooling;
};

}  // namespace bitheads::cuda

// Every kernel, as X(name, dtype).
#define BH_POOL_POSITIONS_KERNELS(X)    \
  X(pool_positions_float32, BH_FLOAT32) \
  X(pool_positions_float16, BH_FLOAT16) \
  X(pool_positions_bfloat16, BH_BFLOAT16)

#endif
