// packed_attention_pool for one thread block: one text's codes pooled by 16 columns, the heads'
// queries, as attention does it, tile of tokens by tile of tokens (the running maximum and sum of
// FlashAttention). One head algebra; only PackedCodes knows what a code is. One class, and so one
// file of over 300 lines: its stages share what a thread keeps in registers and a block in shared
// memory.
#ifndef BITHEADS_CUDA_PACKED_ATTENTION_POOL_CUH
#define BITHEADS_CUDA_PACKED_ATTENTION_POOL_CUH

#include <cuda_fp16.h>

#include "mma.cuh"
#include "packed_attention_pool_args.h"
#include "packed_codes.cuh"

namespace bitheads::cuda {

// Pitches are such that a warp's accesses meet no bank twice: a row of codes is an odd multiple of
// 16 bytes, a row of scores 8 floats and a row of weights 4 words longer than a tile has of them.
template <bh_quantization quantization>
struct AttentionPoolShared {
  static constexpr int kTokens = tile_tokens(quantization);
  static constexpr int kScoreParts = 4;  // sums over a quarter of the features each

  alignas(16) uint8_t codes[kTokens][PackedCodes<quantization>::kRowBytes + 16];
  alignas(16) float scores[kScoreParts][kGroupColumns][kTokens + 8];
  uint32_t weights[kGroupColumns][kTokens / 2 + 4];  // float16, two tokens per word
  // Of a column, over all tokens so far. A warp keeps those of its two columns: here, for registers
  // are few.
  float maximum[kGroupColumns];
  float sum[kGroupColumns];
  float rescale[kGroupColumns];
};

template <bh_quantization quantization>
class AttentionPool {
  using Codes = PackedCodes<quantization>;
  using Shared = AttentionPoolShared<quantization>;
  static constexpr int kTokens = Shared::kTokens;
  static constexpr int kScoreParts = Shared::kScoreParts;
  static constexpr int kScoreTiles = kTokens / 16;                  // of 8 tokens, per warp
  static constexpr int kUnits = kSliceDim / kUnitDim / kPoolWarps;  // per warp
  static constexpr int kWarpColumns = kGroupColumns / kPoolWarps;   // whose softmax a warp takes
  static constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
  static_assert(kTokens <= 64);  // two per lane

 public:
  __device__ AttentionPool(const AttentionPoolArgs &args, Shared &shared)
      : args_(args),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % 32),
        warp_(thread_ / 32),
        group_(lane_ / 4),
        t_(lane_ % 4),
        slice_(static_cast<int>(blockIdx.z)),
        units_(static_cast<int>(ceil_div(slice_dim(slice_), kUnitDim))) {}

  __device__ void run() {
    const int64_t first = __ldg(args_.offsets + blockIdx.x);
    const int64_t last = __ldg(args_.offsets + blockIdx.x + 1);
    const int num_slices = static_cast<int>(gridDim.z);
    if (thread_ < kGroupColumns) {
      shared_.maximum[thread_] = minus_infinity();
      shared_.sum[thread_] = 0.0f;
    }
    for (int64_t token = first; token < last; token += kTokens) {
      const int tokens = static_cast<int>(last - token < kTokens ? last - token : kTokens);
      float scores[kScoreTiles][4] = {};
      // The block's own slice comes last and stays, to be pooled.
      for (int i = 1; i <= num_slices; ++i) {
        const int slice = (slice_ + i) % num_slices;
        __syncthreads();  // the last tile's readers are done
        stage_codes(token, tokens, slice);
        __syncthreads();
        add_scores(slice, tokens, scores);
      }
      share_scores(tokens, scores);
      __syncthreads();
      weigh_tokens(token == first, token + tokens == last, tokens);
      __syncthreads();
      add_weighted_codes(tokens);
    }
    __syncthreads();  // a text without tokens has met at no other
    store_pooled();
  }

 private:
  __device__ int slice_dim(int slice) const {
    const int left = args_.dim - slice * kSliceDim;
    return left < kSliceDim ? left : kSliceDim;
  }

  // The slice of a tile's codes, with zeros behind the last feature and the last token.
  __device__ void stage_codes(int64_t token, int tokens, int slice) {
    const int64_t left = args_.code_bytes - static_cast<int64_t>(slice) * Codes::kRowBytes;
    const int bytes = static_cast<int>(left < Codes::kRowBytes ? left : Codes::kRowBytes);
    const int row_pieces = static_cast<int>(round_up(bytes, Codes::kFillBytes)) / 16;
    const uint8_t *const codes = args_.codes + token * args_.code_bytes + slice * Codes::kRowBytes;
    for (int piece = thread_; piece < kTokens * row_pieces; piece += kPoolThreads) {
      const int row = piece / row_pieces;
      const int byte = piece % row_pieces * 16;
      uint4 four = make_uint4(0, 0, 0, 0);
      if (row < tokens && byte < bytes) {
        const uint8_t *const from = codes + row * args_.code_bytes + byte;
        four = args_.codes_are_aligned ? __ldg(reinterpret_cast<const uint4 *>(from))
                                       : gather(from, bytes - byte);
      }
      *reinterpret_cast<uint4 *>(&shared_.codes[row][byte]) = four;
    }
  }

  // Up to 16 bytes from any address, then zeros.
  __device__ static uint4 gather(const uint8_t *from, int bytes) {
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i < bytes) words[i / 4] |= static_cast<uint32_t>(__ldg(from + i)) << i % 4 * 8;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  // Warp w takes steps w % 4, w % 4 + 4, ...: each query fragment is read by two warps, the even
  // and the odd tiles of 8 tokens. Rows past the last token are zeros: a short text saves half of
  // the tiles, and the loop has no branches.
  __device__ void add_scores(int slice, int tokens, float (&scores)[kScoreTiles][4]) const {
    constexpr int kFewTiles = (kScoreTiles + 1) / 2;
    if (kFewTiles == kScoreTiles || tokens <= kFewTiles * 16) {
      add_scores_of<kFewTiles>(slice, scores);
    } else {
      add_scores_of<kScoreTiles>(slice, scores);
    }
  }

  template <int tiles>
  __device__ void add_scores_of(int slice, float (&scores)[kScoreTiles][4]) const {
    constexpr int kStepBytes = 2 * kFragmentBytes;
    const int part = warp_ % kScoreParts;
    const int steps = static_cast<int>(num_steps(slice_dim(slice), quantization));
    const int64_t first_step = blockIdx.y * num_steps(args_.dim, quantization) +
                               static_cast<int64_t>(slice) * kSliceSteps + part;
    const uint8_t *query = args_.queries + first_step * kStepBytes + lane_ * 16;
#pragma unroll 2
    for (int step = part; step < steps; step += kScoreParts) {
      uint32_t high[4];
      uint32_t low[4];
      load_fragment(query, high);
      load_fragment(query + kFragmentBytes, low);
      query += kScoreParts * kStepBytes;
      uint32_t b0[tiles];
      uint32_t b1[tiles];
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        Codes::step_fragment(shared_.codes[score_tile(i) * 8 + group_], step, t_, b0[i], b1[i]);
      }
#pragma unroll
      for (int i = 0; i < tiles; ++i) mma_m16n8k16(scores[i], high, b0[i], b1[i]);
#pragma unroll
      for (int i = 0; i < tiles; ++i) mma_m16n8k16(scores[i], low, b0[i], b1[i]);
    }
  }

  __device__ static void load_fragment(const uint8_t *address, uint32_t (&a)[4]) {
    const uint4 four = __ldg(reinterpret_cast<const uint4 *>(address));
    a[0] = four.x;
    a[1] = four.y;
    a[2] = four.z;
    a[3] = four.w;
  }

  __device__ int score_tile(int i) const { return 2 * i + warp_ / kScoreParts; }

  __device__ void share_scores(int tokens, const float (&scores)[kScoreTiles][4]) {
    float (&part)[kGroupColumns][kTokens + 8] = shared_.scores[warp_ % kScoreParts];
#pragma unroll
    for (int i = 0; i < kScoreTiles; ++i) {
      if (score_tile(i) * 8 >= tokens) continue;
      const int token = score_tile(i) * 8 + 2 * t_;
      two_floats(part[group_][token]) = make_float2(scores[i][0], scores[i][1]);
      two_floats(part[group_ + 8][token]) = make_float2(scores[i][2], scores[i][3]);
    }
  }

  // Scores become weights 2^15 exp(score - maximum), the maximum over all tokens so far, rounded to
  // float16: 2^15 keeps far smaller weights than 1 would. Their sum is that of the rounded ones.
  __device__ void weigh_tokens(bool is_first_tile, bool is_last_tile, int tokens) {
    constexpr float kLog2E = 1.44269504f;
#pragma unroll
    for (int i = 0; i < kWarpColumns; ++i) {
      const int column = warp_ * kWarpColumns + i;
      const int index = static_cast<int>(blockIdx.y) * kGroupColumns + column;
      const bool is_real = index < args_.columns;
      const float scale = is_real ? __ldg(args_.column_scale + index) : 0.0f;
      const int token = lane_ * 2;
      float score[2] = {minus_infinity(), minus_infinity()};
      if (token < tokens) {
        float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int part = 0; part < kScoreParts; ++part) {
          const float2 two = two_floats(shared_.scores[part][column][token]);
          sum.x += two.x;
          sum.y += two.y;
        }
        score[0] = sum.x * scale;
        if (token + 1 < tokens) score[1] = sum.y * scale;
        if (is_first_tile && token == 0 && is_real) {
          score[0] += __ldg(args_.end_bias + 2 * index);
        }
        if (is_last_tile && token + 2 >= tokens && is_real) {
          const float bias = __ldg(args_.end_bias + 2 * index + 1);
          if (token + 1 < tokens) {
            score[1] += bias;
          } else {
            score[0] += bias;
          }
        }
      }
      const float last_maximum = shared_.maximum[column];
      float maximum = fmaxf(last_maximum, fmaxf(score[0], score[1]));
#pragma unroll
      for (int lanes = 16; lanes > 0; lanes /= 2) {
        maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, lanes));
      }
      uint32_t word = 0;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const __half weight = __float2half_rn(exp2f((score[j] - maximum) * kLog2E + 15.0f));
        word |= static_cast<uint32_t>(__half_as_ushort(weight)) << 16 * j;
        sum += __half2float(weight);
      }
      if (token < kTokens) shared_.weights[column][lane_] = word;
#pragma unroll
      for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
      __syncwarp();  // all lanes have read the last maximum: a shuffle does not order memory
      if (lane_ == 0) {
        const float rescale = exp2f((last_maximum - maximum) * kLog2E);
        shared_.rescale[column] = rescale;
        shared_.sum[column] = shared_.sum[column] * rescale + sum;
        shared_.maximum[column] = maximum;
      }
    }
  }

  // At an even index, so 8 bytes in one piece.
  __device__ static float2 &two_floats(float &first) { return *reinterpret_cast<float2 *>(&first); }

  __device__ static float minus_infinity() { return __uint_as_float(0xFF800000u); }

  __device__ void add_weighted_codes(int tokens) {
    const float rescale[2] = {shared_.rescale[group_], shared_.rescale[group_ + 8]};
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int tile = 0; tile < 4; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) pooled_[u][tile][i] *= rescale[i / 2];
      }
    }
#pragma unroll 1
    for (int token = 0; token < tokens; token += 16) {
      const int word = token / 2 + t_;
      const uint32_t weights[4] = {shared_.weights[group_][word], shared_.weights[group_ + 8][word],
                                   shared_.weights[group_][word + 4],
                                   shared_.weights[group_ + 8][word + 4]};
      const uint8_t (*const rows)[Codes::kRowBytes + 16] = &shared_.codes[token + 2 * t_];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        if (unit(u) >= units_) continue;
        uint32_t b0[4];
        uint32_t b1[4];
        Codes::pair_fragments(rows[0], rows[1], unit(u), group_, b0);
        Codes::pair_fragments(rows[8], rows[9], unit(u), group_, b1);
#pragma unroll
        for (int tile = 0; tile < 4; ++tile) {
          mma_m16n8k16(pooled_[u][tile], weights, b0[tile], b1[tile]);
        }
      }
    }
  }

  __device__ int unit(int u) const { return warp_ + kPoolWarps * u; }

  // A quad stores 32 features, 16 bytes per lane; features past dim are sums over zeros.
  __device__ void store_pooled() const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = group_ + 8 * half;
      const int column = static_cast<int>(blockIdx.y) * kGroupColumns + row;
      if (column >= args_.columns) continue;
      const float sum = shared_.sum[row];
      const float inverse_sum = sum == 0.0f ? 0.0f : 1.0f / sum;  // 0: a text without tokens
      uint16_t *const out =
          args_.pooled +
          (static_cast<int64_t>(blockIdx.x) * args_.columns + column) * args_.dim_padded +
          slice_ * kSliceDim + 8 * t_;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        if (unit(u) >= units_) continue;
        uint32_t words[4] = {};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int tile = Codes::tile(i);
          const float product = pooled_[u][tile][2 * half + Codes::column(i)];
          const __half mean = __float2half_rn(product * Codes::unit_scale(tile) * inverse_sum);
          words[i / 2] |= static_cast<uint32_t>(__half_as_ushort(mean)) << i % 2 * 16;
        }
        *reinterpret_cast<uint4 *>(out + unit(u) * kUnitDim) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }

  const AttentionPoolArgs &args_;
  Shared &shared_;
  const int thread_;
  const int lane_;
  const int warp_;
  const int group_;  // of four lanes: the row of A and C, the column of B that the lane holds
  const int t_;      // the lane's place in it
  const int slice_;
  const int units_;  // of the slice
  float pooled_[kUnits][4][4] = {};
};

}  // namespace bitheads::cuda

#endif
