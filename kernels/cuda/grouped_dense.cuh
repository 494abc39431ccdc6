// grouped_dense for one thread block: a tile of one group's act(scale * (input . weights) + bias).
#ifndef BITHEADS_CUDA_GROUPED_DENSE_CUH
#define BITHEADS_CUDA_GROUPED_DENSE_CUH

#include <cuda_fp16.h>

#include "grouped_dense_args.h"
#include "mma.cuh"

namespace bitheads::cuda {

// Rows of 32 halves, 4 pieces of 16 bytes. While one of the two is multiplied, the other is filled.
struct GroupedDenseShared {
  static constexpr int kRowPieces = kDenseDepth / 8;

  uint4 inputs[2][kDenseTexts][kRowPieces];
  uint4 weights[2][kDenseOutputs][kRowPieces];
};

template <bh_dense_kind kind>
class GroupedDense {
  static constexpr int kPieceHalves = 8;  // 16 bytes
  static constexpr int kRowPieces = GroupedDenseShared::kRowPieces;
  static constexpr int kPieces =
      kDenseTexts * kRowPieces / kDenseThreads;  // per thread and operand
  static constexpr int kTiles = kDenseOutputs / 8;
  static_assert(kDenseTexts == kDenseOutputs && kDenseTexts == kDenseWarps * 16);

  struct Staged {
    uint4 inputs[kPieces];
    uint4 weights[kPieces];
  };

 public:
  __device__ GroupedDense(const GroupedDenseArgs &args, GroupedDenseShared &shared)
      : group_(args.groups[blockIdx.z]),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        row_(thread_ % 32 / 4),
        t_(thread_ % 4),
        warp_text_(thread_ / 32 * 16),
        inputs_are_aligned_((reinterpret_cast<uintptr_t>(group_.input) |
                             static_cast<uintptr_t>(group_.input_stride * 2)) %
                                16 ==
                            0),
        first_output_(static_cast<int64_t>(blockIdx.x) * kDenseOutputs),
        first_text_(static_cast<int64_t>(blockIdx.y) * kDenseTexts),
        outputs_(static_cast<int>(min_of(group_.n - first_output_, kDenseOutputs))),
        texts_(static_cast<int>(min_of(args.texts - first_text_, kDenseTexts))) {}

  __device__ void run() {
    if (outputs_ <= 0) return;  // the whole block: another group is wider
    find_rows();
    Staged staged;
    load(0, staged);
    store(0, staged);
    __syncthreads();
    int half = 0;
    for (int first = 0; first < group_.k; first += kDenseDepth) {
      const bool has_next = first + kDenseDepth < group_.k;
      if (has_next) load(first + kDenseDepth, staged);  // on their way during the products
      multiply(half);
      half ^= 1;
      if (has_next) store(half, staged);  // its readers passed the last __syncthreads
      __syncthreads();
    }
    finish();
  }

 private:
  __device__ static constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

  __device__ static const uint16_t *halves(const void *address) {
    return static_cast<const uint16_t *>(address);
  }

  // Where the thread's pieces begin. Rows past the end repeat the last one: no branch keeps them
  // out of the loop, and what comes of them is not stored.
  __device__ void find_rows() {
    const int64_t row_halves = round_up(group_.k, kDenseDepth);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = thread_ + kDenseThreads * i;
      const int64_t text = first_text_ + min_of(piece / kRowPieces, texts_ - 1);
      const int64_t n = first_output_ + min_of(piece / kRowPieces, outputs_ - 1);
      const int k = piece % kRowPieces * kPieceHalves;
      inputs_[i] = halves(group_.input) + text * group_.input_stride + k;
      weights_[i] = halves(group_.weights) + n * row_halves + k;
    }
  }

  __device__ void load(int first, Staged &staged) const {
    if (inputs_are_aligned_ && first + kDenseDepth <= group_.k) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) staged.inputs[i] = load_piece(inputs_[i] + first);
    } else {
      const int left = group_.k - first - thread_ % kRowPieces * kPieceHalves;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) staged.inputs[i] = gather(inputs_[i] + first, left);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) staged.weights[i] = load_piece(weights_[i] + first);
  }

  __device__ static uint4 load_piece(const uint16_t *from) {
    return __ldg(reinterpret_cast<const uint4 *>(from));
  }

  // Up to 8 halves from any address, then zeros: what lies past k may be no number.
  __device__ static uint4 gather(const uint16_t *from, int halves) {
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < kPieceHalves; ++i) {
      if (i < halves) words[i / 2] |= static_cast<uint32_t>(__ldg(from + i)) << i % 2 * 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  __device__ void store(int half, const Staged &staged) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = thread_ + kDenseThreads * i;
      shared_.inputs[half][piece / kRowPieces][piece % kRowPieces] = staged.inputs[i];
      shared_.weights[half][piece / kRowPieces][piece % kRowPieces] = staged.weights[i];
    }
  }

  // A narrow group, such as an attention head's values, saves half of the tiles.
  __device__ void multiply(int half) {
    if (warp_text_ >= texts_) return;  // the whole warp
    if (outputs_ <= kDenseOutputs / 2) {
      multiply_tiles<kTiles / 2>(half);
    } else {
      multiply_tiles<kTiles>(half);
    }
  }

  // The order of k within a sum is free: lane t of a quad takes the t-th piece of a row, whose four
  // words are its k of two steps. A warp's loads then meet no bank twice, without padding.
  template <int tiles>
  __device__ void multiply_tiles(int half) {
    const uint4 top = shared_.inputs[half][warp_text_ + row_][t_];
    const uint4 bottom = shared_.inputs[half][warp_text_ + row_ + 8][t_];
    const uint32_t first[4] = {top.x, bottom.x, top.y, bottom.y};
    const uint32_t second[4] = {top.z, bottom.z, top.w, bottom.w};
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      const uint4 weights = shared_.weights[half][tile * 8 + row_][t_];
      mma_m16n8k16(sums_[tile], first, weights.x, weights.y);
      mma_m16n8k16(sums_[tile], second, weights.z, weights.w);
    }
  }

  __device__ void finish() const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int text = warp_text_ + row_ + i / 2 * 8;
        const int column = tile * 8 + 2 * t_ + i % 2;
        if (text >= texts_ || column >= outputs_) continue;
        const int64_t n = first_output_ + column;
        const float bias = group_.bias == nullptr ? 0.0f : __ldg(group_.bias + n);
        const float sum = sums_[tile][i] * __ldg(group_.scale + n) + bias;
        write((first_text_ + text) * group_.output_stride + n, sum);
      }
    }
  }

  __device__ void write(int64_t index, float sum) const {
    // tanhf is within 2 units in the last place (CUDA Math API), far finer than a float16.
    const float value = kind == BH_DENSE_HIDDEN ? tanhf(sum) : sum;
    if (kind != BH_DENSE_OUTPUT) {
      static_cast<uint16_t *>(group_.output)[index] = __half_as_ushort(__float2half_rn(value));
    } else {
      static_cast<float *>(group_.output)[index] = value;
    }
  }

  const bh_dense_group group_;
  GroupedDenseShared &shared_;
  const int thread_;
  const int row_;  // the lane's row of A and C, its column of B
  const int t_;    // the lane's place in its quad
  const int warp_text_;
  const bool inputs_are_aligned_;  // to 16 bytes, every text
  const int64_t first_output_;
  const int64_t first_text_;
  const int outputs_;
  const int texts_;
  const uint16_t *inputs_[kPieces];
  const uint16_t *weights_[kPieces];
  float sums_[kTiles][4] = {};
};

}  // namespace bitheads::cuda

#endif
