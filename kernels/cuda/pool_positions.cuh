// pool_positions for one thread: a feature of a row, over the row's tokens in order, as SPEC.md has
// it. Every operation is an intrinsic that names its rounding, as in pool_and_pack.cuh.
#ifndef BITHEADS_CUDA_POOL_POSITIONS_CUH
#define BITHEADS_CUDA_POOL_POSITIONS_CUH

#include "loads.cuh"
#include "pool_positions_args.h"

namespace bitheads::cuda {

template <bh_dtype dtype>
class PoolPositions {
  static constexpr int kBytes = dtype == BH_FLOAT32 ? 4 : 2;
  // The loads of so many tokens are on their way together. A sum is in order, so one thread has to
  // walk along its row: what hides the latency is this, and neighbours' rows and features.
  static constexpr int kTokensInFlight = 8;

 public:
  __device__ explicit PoolPositions(const PoolPositionsArgs &args)
      : args_(args),
        row_(blockIdx.y),
        feature_(static_cast<int32_t>(blockIdx.x * kPositionThreads + threadIdx.x)) {}

  __device__ void run() const {
    if (feature_ >= args_.dim) return;
    const auto length = static_cast<int32_t>(__ldg(args_.lengths + row_));
    args_.pooled[row_ * args_.pooled_stride + feature_] = length == 0 ? 0.0f : pooled(length);
  }

 private:
  __device__ float pooled(int32_t length) const {
    const uint8_t *first =
        args_.states + row_ * args_.row_stride_bytes + static_cast<int64_t>(feature_) * kBytes;
    const bh_embedding_pooling pooling = args_.pooling;
    if (pooling == BH_EMBEDDING_CLS) return value(first);
    if (pooling == BH_EMBEDDING_LASTTOKEN) {
      return value(first + (length - 1) * args_.token_stride_bytes);
    }
    if (pooling == BH_EMBEDDING_MAX) return fold<BH_EMBEDDING_MAX>(first, length);
    if (pooling == BH_EMBEDDING_WEIGHTEDMEAN) {  // the weights are 1 to length
      const int64_t weights = static_cast<int64_t>(length) * (length + 1) / 2;
      return __fdiv_rn(fold<BH_EMBEDDING_WEIGHTEDMEAN>(first, length), static_cast<float>(weights));
    }
    const float count = static_cast<float>(length);
    const float divisor = pooling == BH_EMBEDDING_MEAN ? count : __fsqrt_rn(count);
    return __fdiv_rn(fold<BH_EMBEDDING_MEAN>(first, length), divisor);
  }

  // What comes of the row's tokens, the first one taken as it is: its weight is 1.
  template <bh_embedding_pooling pooling>
  __device__ float fold(const uint8_t *next, int32_t length) const {
    float found = value(next);
    next += args_.token_stride_bytes;
    int32_t token = 1;
#pragma unroll 1
    for (; token + kTokensInFlight <= length; token += kTokensInFlight) {
      found = take<pooling, kTokensInFlight>(found, next, token);
    }
#pragma unroll 1
    for (; token < length; ++token) found = take<pooling, 1>(found, next, token);
    return found;
  }

  // Of `count` tokens more; `next` is moved past them.
  template <bh_embedding_pooling pooling, int count>
  __device__ float take(float found, const uint8_t *&next, int32_t token) const {
    float x[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      x[i] = value(next);
      next += args_.token_stride_bytes;
    }
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (pooling == BH_EMBEDDING_MAX) {
        found = x[i] > found || x[i] != x[i] ? x[i] : found;  // a NaN stays
      } else if (pooling == BH_EMBEDDING_WEIGHTEDMEAN) {
        found = __fadd_rn(found, __fmul_rn(static_cast<float>(token + i + 1), x[i]));
      } else {
        found = __fadd_rn(found, x[i]);
      }
    }
    return found;
  }

  // Planning has looked that addresses are aligned.
  __device__ static float value(const uint8_t *address) {
    if (dtype == BH_FLOAT32) {
      return __uint_as_float(__ldg(reinterpret_cast<const uint32_t *>(address)));
    }
    return float_of_16_bits<dtype>(__ldg(reinterpret_cast<const uint16_t *>(address)));
  }

  const PoolPositionsArgs &args_;
  const int64_t row_;
  const int32_t feature_;
};

}  // namespace bitheads::cuda

#endif
