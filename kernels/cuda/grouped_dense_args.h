// What host and device share about grouped_dense: its argument, its tiles, its kernels.
#ifndef BITHEADS_CUDA_GROUPED_DENSE_ARGS_H
#define BITHEADS_CUDA_GROUPED_DENSE_ARGS_H

#include "bitheads/cuda.h"
#include "rounding.h"

namespace bitheads::cuda {

// A thread block makes 64 outputs of 64 texts, a warp all 64 of 16 texts: groups of few outputs
// still keep every warp busy. Both operands pass through shared memory 32 inputs at a time.
constexpr int kDenseTexts = 64;
constexpr int kDenseOutputs = 64;
constexpr int kDenseDepth = 32;
constexpr int kDenseWarps = 4;
constexpr int kDenseThreads = kDenseWarps * 32;

// Passed by value. All pointers are the device's. The grid is [tiles of outputs, tiles of texts,
// groups].
struct GroupedDenseArgs {
  const bh_dense_group *groups;
  int64_t texts;
};

}  // namespace bitheads::cuda

// Every kernel, as X(name, kind).
#define BH_GROUPED_DENSE_KERNELS(X)              \
  X(grouped_dense_float16, BH_DENSE_VALUE)       \
  X(grouped_dense_tanh_float16, BH_DENSE_HIDDEN) \
  X(grouped_dense_float32, BH_DENSE_OUTPUT)

#endif
