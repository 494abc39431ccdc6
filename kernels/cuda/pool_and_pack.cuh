// pool_and_pack for one lane: SPEC.md's arithmetic, once, for every dtype, mode and path.
//
// Every operation is an intrinsic that names its rounding: neither fast-math nor contraction into
// fused multiply-adds can change a byte, whatever flags a build sets.
#ifndef BITHEADS_CUDA_POOL_AND_PACK_CUH
#define BITHEADS_CUDA_POOL_AND_PACK_CUH

#include "loads.cuh"
#include "pool_and_pack_args.h"

namespace bitheads::cuda {

template <bh_dtype dtype, Mode mode, bool weighted, Path path>
class PoolAndPack {
  static constexpr int kFeatures = lane_features(dtype, path);
  static constexpr int kElementBytes = dtype == BH_FLOAT32 ? 4 : 2;
  static constexpr bool kIsSign = mode == Mode::kSign || mode == Mode::kVote;
  static constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
  using Floats = float[kFeatures];

 public:
  // One warp per token and block of features, from the grid alone, with no loop over tokens: even a
  // single short text becomes (tokens x dim / 256) warps instead of a few that walk along it.
  __device__ explicit PoolAndPack(const PoolAndPackArgs &args)
      : args_(args),
        row_(blockIdx.z),
        token_(static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y),
        feature_(static_cast<int32_t>(blockIdx.y * kWarpLanes + threadIdx.x) * kFeatures) {}

  __device__ void run() const {
    // The whole warp leaves, and before it has read anything of a padded token.
    if (token_ >= __ldg(args_.lengths + row_)) return;
    const int64_t code = __ldg(args_.token_offsets + row_) + token_;
    const bool has_features = feature_ < args_.dim;
    if (kIsSign) {  // lanes without features stay: bits are exchanged by the whole warp
      const int64_t code_bytes = (static_cast<int64_t>(args_.dim) + 7) / 8;
      store_bits(has_features ? sign_bits() : 0, has_features, args_.codes + code * code_bytes);
    } else if (has_features) {
      constexpr int kCodeBytes = mode == Mode::kHalf ? 2 : 1;
      const int64_t first = code * args_.dim + feature_;
      store_numbers(args_.codes + first * kCodeBytes);
    }
  }

 private:
  // The loads of this many layers are on their way together: latency is hidden even when a short
  // text brings few warps. More would cost registers, and with them warps; a vote keeps thresholds
  // and counts in registers, too.
  static constexpr int kLayersInFlight = mode == Mode::kVote && kFeatures == 8 ? 2 : 4;

  __device__ void sum_layers(Floats &sum, uint32_t *votes, const Floats &threshold) const {
#pragma unroll
    for (int j = 0; j < kFeatures; ++j) {
      sum[j] = -0.0f;  // adds to any first layer without changing it, +0 would not
    }
    int32_t layer = 0;
#pragma unroll 1
    for (; layer + kLayersInFlight <= args_.num_layers; layer += kLayersInFlight) {
      add_layers<kLayersInFlight>(layer, sum, votes, threshold);
    }
#pragma unroll 1
    for (; layer < args_.num_layers; ++layer) add_layers<1>(layer, sum, votes, threshold);
  }

  template <int count>
  __device__ void add_layers(int32_t first, Floats &sum, uint32_t *votes,
                             const Floats &threshold) const {
    Chunk<dtype, path> chunks[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const bh_layer &layer = args_.layers[first + i];
      chunks[i].load(static_cast<const uint8_t *>(layer.data) + row_ * layer.row_stride_bytes +
                     token_ * layer.token_stride_bytes +
                     static_cast<int64_t>(feature_) * kElementBytes);
    }
#pragma unroll
    for (int i = 0; i < count; ++i) {
      Floats x;
      chunks[i].floats(x);
#pragma unroll
      for (int j = 0; j < kFeatures; ++j) {
        // One byte per count: num_layers is at most 64.
        if (mode == Mode::kVote && x[j] > threshold[j]) votes[j / 4] += 1u << j % 4 * 8;
        if (weighted) x[j] = __fmul_rn(args_.layer_weights[first + i], x[j]);
        sum[j] = __fadd_rn(sum[j], x[j]);
      }
    }
  }

  // The lane's bits, feature_ the highest of kFeatures.
  __device__ uint32_t sign_bits() const {
    Floats sum;
    Floats threshold;
    uint32_t votes[(kFeatures + 3) / 4] = {};
    // A vote compares every layer; a sign compares once, and its loop has registers to spare.
    if (mode == Mode::kVote) load_parameters(args_.thresholds, feature_, threshold);
    sum_layers(sum, votes, threshold);
    if (mode == Mode::kSign) load_parameters(args_.thresholds, feature_, threshold);
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < kFeatures; ++j) {
      const uint32_t count = votes[j / 4] >> j % 4 * 8 & 0xFFu;
      bits = bits << 1 | (bit(sum[j], count, threshold[j]) ? 1u : 0u);
    }
    return bits;
  }

  __device__ bool bit(float sum, uint32_t votes, float threshold) const {
    // The weights carry their own divisor. All comparisons with a NaN are false.
    const float scaled =
        weighted ? threshold : __fmul_rn(static_cast<float>(args_.num_layers), threshold);
    const bool positive = sum > scaled;
    if (mode == Mode::kSign) return positive;
    const uint32_t twice = 2 * votes;
    const uint32_t num_layers = static_cast<uint32_t>(args_.num_layers);
    return twice > num_layers || (twice == num_layers && positive);
  }

  __device__ void store_bits(uint32_t bits, bool has_features, uint8_t *code) const {
    if (kFeatures == 8) {  // a byte per lane, 32 neighbours per warp
      if (has_features) code[feature_ / 8] = static_cast<uint8_t>(bits);
    } else if (kFeatures == 4) {  // the even lane of a pair has the byte's first half
      const uint32_t other = __shfl_xor_sync(kAllLanes, bits, 1);
      if (has_features && threadIdx.x % 2 == 0) {
        code[feature_ / 8] = static_cast<uint8_t>(bits << 4 | other);
      }
    } else {  // lane i is bit i of a ballot, and reversed the i-th from the top
      const uint32_t ballot = __brev(__ballot_sync(kAllLanes, bits != 0));
      const int32_t lane = static_cast<int32_t>(threadIdx.x);
      const int32_t first_feature = feature_ - lane;
      if (lane < 4 && first_feature + 8 * lane < args_.dim) {
        code[first_feature / 8 + lane] = static_cast<uint8_t>(ballot >> (24 - 8 * lane));
      }
    }
  }

  // `out` is where the code of feature_ goes.
  __device__ void store_numbers(uint8_t *out) const {
    Floats mean;
    sum_layers(mean, nullptr, mean);
#pragma unroll
    for (int j = 0; j < kFeatures; ++j) {
      if (!weighted) mean[j] = __fdiv_rn(mean[j], static_cast<float>(args_.num_layers));
    }
    if (mode == Mode::kHalf) {
      store_halves(mean, out);
    } else {
      store_bytes(mean, out);
    }
  }

  __device__ static void store_halves(const Floats &mean, uint8_t *out) {
    uint32_t words[(kFeatures + 1) / 2] = {};
#pragma unroll
    for (int j = 0; j < kFeatures; ++j) {
      const uint32_t half = __half_as_ushort(__float2half_rn(mean[j]));
      words[j / 2] |= half << j % 2 * 16;
    }
    store_words<2 * kFeatures>(words, out);
  }

  __device__ void store_bytes(const Floats &mean, uint8_t *out) const {
    Floats inverse_scale;
    Floats zero_point;
    load_parameters(args_.inverse_scale, feature_, inverse_scale);
    load_parameters(args_.zero_point, feature_, zero_point);
    uint32_t words[(kFeatures + 3) / 4] = {};
#pragma unroll
    for (int j = 0; j < kFeatures; ++j) {
      const float scaled = __fadd_rn(__fmul_rn(mean[j], inverse_scale[j]), zero_point[j]);
      // fmaxf returns its other operand when one is NaN; _rn rounds half to even.
      const float clamped = fminf(fmaxf(scaled, 0.0f), 255.0f);
      words[j / 4] |= __float2uint_rn(clamped) << j % 4 * 8;
    }
    store_words<kFeatures>(words, out);
  }

  // In one piece, which the vector path's alignment allows; a lone half may lie anywhere.
  template <int bytes>
  __device__ static void store_words(const uint32_t *words, uint8_t *out) {
    if (bytes == 16) {
      *reinterpret_cast<uint4 *>(out) = make_uint4(words[0], words[1], words[2], words[3]);
    } else if (bytes == 8) {
      *reinterpret_cast<uint2 *>(out) = make_uint2(words[0], words[1]);
    } else if (bytes == 4) {
      *reinterpret_cast<uint32_t *>(out) = words[0];
    } else {
#pragma unroll
      for (int i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(words[0] >> 8 * i);
    }
  }

  const PoolAndPackArgs &args_;
  const int64_t row_;
  const int64_t token_;
  const int32_t feature_;
};

}  // namespace bitheads::cuda

#endif
