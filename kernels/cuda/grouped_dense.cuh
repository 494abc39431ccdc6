// grouped_dense for one thread block: a tile of one group's act(scale * (input . weights) + bias).
#ifndef BITHEADS_CUDA_GROUPED_DENSE_CUH
#define BITHEADS_CUDA_GROUPED_DENSE_CUH

#include <cuda_fp16.h>

#include "grouped_dense_args.h"
#include "mma.cuh"

namespace bitheads::cuda {

// Rows of 32 halves and 4 words of padding: the fragments of a warp lie in 32 different banks.
// While one half is multiplied, the other is filled.
struct GroupedDenseShared {
  static constexpr int kPitch = kDenseDepth / 2 + 4;  // words of two halves

  alignas(16) uint32_t inputs[2][kDenseTexts][kPitch];
  alignas(16) uint32_t weights[2][kDenseOutputs][kPitch];
};

template <Activation activation, DenseOutput output>
class GroupedDense {
  static constexpr int kPieceHalves = 8;  // 16 bytes
  static constexpr int kRowPieces = kDenseDepth / kPieceHalves;
  static constexpr int kPieces = kDenseTexts * kRowPieces / kDenseThreads;  // a thread and operand
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
        first_output_(static_cast<int64_t>(blockIdx.x) * kDenseOutputs),
        first_text_(static_cast<int64_t>(blockIdx.y) * kDenseTexts),
        outputs_(static_cast<int>(min_of(group_.n - first_output_, kDenseOutputs))),
        texts_(static_cast<int>(min_of(args.texts - first_text_, kDenseTexts))) {}

  __device__ void run() {
    if (outputs_ <= 0) return;  // the whole block: another group is wider
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

  // Rows past the end are zeros, and inputs past k: what lies there may be no number.
  __device__ void load(int first, Staged &staged) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = thread_ + kDenseThreads * i;
      const int row = piece / kRowPieces;
      const int k = first + piece % kRowPieces * kPieceHalves;
      staged.inputs[i] = make_uint4(0, 0, 0, 0);
      staged.weights[i] = make_uint4(0, 0, 0, 0);
      if (row < texts_ && k < group_.k) {
        const uint16_t *const from = group_.input + (first_text_ + row) * group_.input_stride + k;
        staged.inputs[i] = load_inputs(from, group_.k - k);
      }
      if (row < outputs_) {
        const int64_t row_halves = round_up(group_.k, kDenseDepth);
        const uint16_t *const from = group_.weights + (first_output_ + row) * row_halves + k;
        staged.weights[i] = __ldg(reinterpret_cast<const uint4 *>(from));
      }
    }
  }

  // Up to 8 halves, then zeros.
  __device__ static uint4 load_inputs(const uint16_t *from, int halves) {
    if (halves >= kPieceHalves && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      return __ldg(reinterpret_cast<const uint4 *>(from));
    }
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
      const int row = piece / kRowPieces;
      const int word = piece % kRowPieces * 4;
      *reinterpret_cast<uint4 *>(&shared_.inputs[half][row][word]) = staged.inputs[i];
      *reinterpret_cast<uint4 *>(&shared_.weights[half][row][word]) = staged.weights[i];
    }
  }

  __device__ void multiply(int half) {
    if (warp_text_ >= texts_) return;  // the whole warp
    const uint32_t (&inputs)[kDenseTexts][GroupedDenseShared::kPitch] = shared_.inputs[half];
    const uint32_t (&weights)[kDenseOutputs][GroupedDenseShared::kPitch] = shared_.weights[half];
    const int row = warp_text_ + row_;
#pragma unroll
    for (int word = t_; word < kDenseDepth / 2; word += 8) {
      const uint32_t a[4] = {inputs[row][word], inputs[row + 8][word], inputs[row][word + 4],
                             inputs[row + 8][word + 4]};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile * 8 >= outputs_) continue;
        mma_m16n8k16(sums_[tile], a, weights[tile * 8 + row_][word],
                     weights[tile * 8 + row_][word + 4]);
      }
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
    const float value = activation == Activation::kTanh ? tanhf(sum) : sum;
    if (output == DenseOutput::kFloat16) {
      static_cast<uint16_t *>(group_.output)[index] = __half_as_ushort(__float2half_rn(value));
    } else {
      static_cast<float *>(group_.output)[index] = value;
    }
  }

  const DenseGroup group_;
  GroupedDenseShared &shared_;
  const int thread_;
  const int row_;  // the lane's row of A and C, its column of B
  const int t_;    // the lane's place in its quad
  const int warp_text_;
  const int64_t first_output_;
  const int64_t first_text_;
  const int outputs_;
  const int texts_;
  float sums_[kTiles][4] = {};
};

}  // namespace bitheads::cuda

#endif
