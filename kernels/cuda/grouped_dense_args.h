// What host and device share about grouped_dense: its argument, its tiles, its kernels.
#ifndef BITHEADS_CUDA_GROUPED_DENSE_ARGS_H
#define BITHEADS_CUDA_GROUPED_DENSE_ARGS_H

#include "rounding.h"

namespace bitheads::cuda {

// A thread block makes 64 outputs of 64 texts, a warp all 64 of 16 texts: groups of few outputs
// still keep every warp busy. Both operands pass through shared memory 32 inputs at a time.
constexpr int kDenseTexts = 64;
constexpr int kDenseOutputs = 64;
constexpr int kDenseDepth = 32;
constexpr int kDenseWarps = 4;
constexpr int kDenseThreads = kDenseWarps * 32;

// One matrix. Groups are rows of a table in device memory: one more task is one more row. Strides
// are in items; inputs and outputs may be slices of something larger. n and k are at least 1.
struct DenseGroup {
  const uint16_t *input;    // float16 [texts, k]
  const uint16_t *weights;  // float16 [n, k rounded up to kDenseDepth], of lay_out_dense
  const float *scale;       // [n], of lay_out_dense
  const float *bias;        // [n] or null: 0
  void *output;             // [texts, n], float16 or float32 as the kernel has it
  int64_t input_stride;
  int64_t output_stride;
  int32_t n;
  int32_t k;
};

// Passed by value. All pointers are the device's. The grid is [tiles of outputs, tiles of texts,
// groups].
struct GroupedDenseArgs {
  const DenseGroup *groups;
  int64_t texts;
};

enum class Activation { kIdentity, kTanh };
enum class DenseOutput { kFloat16, kFloat32 };

}  // namespace bitheads::cuda

// Every kernel, as X(name, activation, output).
#define BH_GROUPED_DENSE_KERNELS(X)                                  \
  X(grouped_dense_float16, ::bitheads::cuda::Activation::kIdentity,  \
    ::bitheads::cuda::DenseOutput::kFloat16)                         \
  X(grouped_dense_tanh_float16, ::bitheads::cuda::Activation::kTanh, \
    ::bitheads::cuda::DenseOutput::kFloat16)                         \
  X(grouped_dense_float32, ::bitheads::cuda::Activation::kIdentity,  \
    ::bitheads::cuda::DenseOutput::kFloat32)

#endif
