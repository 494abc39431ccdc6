// What host and device share about packed_attention_pool: its argument, its tiles, the order of its
// queries, its kernels.
#ifndef BITHEADS_CUDA_PACKED_ATTENTION_POOL_ARGS_H
#define BITHEADS_CUDA_PACKED_ATTENTION_POOL_ARGS_H

#include "bitheads/kernels.h"
#include "rounding.h"

namespace bitheads::cuda {

// A thread block pools one text for a group of columns: the tensor core's 16 rows.
constexpr int kGroupColumns = 16;
constexpr int kPoolWarps = 8;
constexpr int kPoolThreads = kPoolWarps * 32;

// Features whose pooled values a block's registers hold, and whose codes lie in shared memory at a
// time. Wider codes are cut into such slices; each is a block of its own that computes all scores.
constexpr int kSliceDim = 1024;
constexpr int kUnitDim = 32;   // a warp pools units of so many features
constexpr int kStepDim = 16;   // and takes scores in steps of so many
constexpr int kSignSteps = 8;  // steps that share 32-bit words of signs
constexpr int kSliceSteps = kSliceDim / kStepDim;

// Passed by value. All pointers are the device's. The grid is [texts, groups, slices].
struct AttentionPoolArgs {
  const uint8_t *codes;       // [tokens, code_bytes]
  const int64_t *offsets;     // [texts + 1]
  const uint8_t *queries;     // fragments, see query_index
  const float *column_scale;  // [columns]
  const float *end_bias;      // [columns, 2]
  uint16_t *pooled;           // float16 [texts, columns, dim_padded]
  int64_t code_bytes;
  int32_t columns;
  int32_t dim;
  int32_t dim_padded;
  int32_t codes_are_aligned;  // to 16 bytes, every token
};

// Tokens of a tile: what leaves two blocks' shared memory on any multiprocessor.
constexpr int tile_tokens(bh_quantization quantization) {
  return quantization == BH_SIGN ? 64 : quantization == BH_UINT8 ? 32 : 16;
}

// Steps in which all scores of a code are taken.
BH_HOST_DEVICE constexpr int64_t num_steps(int64_t dim, bh_quantization quantization) {
  return quantization == BH_SIGN ? ceil_div(dim, kStepDim * kSignSteps) * kSignSteps
                                 : ceil_div(dim, kStepDim);
}

// The feature that is number k of a step. Any order gives the same score: this is the one in which
// lane t of a quad, whose B fragment is k = 2t, 2t + 1, 2t + 8 and 2t + 9, finds its four features
// in one 32-bit word (two for float16) without moving bits between halves:
//   sign: bit (step % 8) of the bytes 0, 2, 1, 3 of the t-th word; packed bits start at the top;
//   uint8: the bytes 0, 2, 1, 3 of the t-th word; float16: as they lie.
constexpr int64_t step_feature(int64_t step, int k, bh_quantization quantization) {
  if (quantization == BH_HALF) return step * kStepDim + k;
  const int64_t word = (quantization == BH_SIGN ? step / kSignSteps : step) * 4 + k % 8 / 2;
  const int64_t byte = word * 4 + k % 2 * 2 + k / 8;
  return quantization == BH_SIGN ? byte * 8 + 7 - step % kSignSteps : byte;
}

// The kernels take bits and bytes for float16 as they are: bit b of a half is the subnormal
// 2^(b - 24), a byte v is v 2^-24. A code counts 2^-exponent; queries and pooled values make up.
constexpr int code_exponent(int64_t step, bh_quantization quantization) {
  if (quantization == BH_HALF) return 0;
  return quantization == BH_SIGN ? 24 - static_cast<int>(step % kSignSteps) : 24;
}

// Queries are stored as the A fragments of mma_m16n8k16, so that a lane reads its own with one
// 16-byte load: uint32 [groups][num_steps][2][lane 32][4], first the high part, then the low one.
constexpr int64_t kFragmentBytes = 32 * 16;

}  // namespace bitheads::cuda

// Every kernel, as X(name, quantization).
#define BH_ATTENTION_POOL_KERNELS(X)       \
  X(packed_attention_pool_sign, BH_SIGN)   \
  X(packed_attention_pool_uint8, BH_UINT8) \
  X(packed_attention_pool_float16, BH_HALF)

#endif
