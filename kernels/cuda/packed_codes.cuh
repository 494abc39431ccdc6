// Packed codes as the tensor core's B fragments: all that sign, uint8 and float16 differ in.
//
// A bit or a byte that is masked where it lies in a half is a float16 subnormal, a power of two
// times the code (see code_exponent): one AND makes two numbers, and nothing is converted. Tensor
// cores take subnormals as they are and at full speed (Fasi, Higham, Mikaitis and Pranesh,
// "Numerical behavior of NVIDIA tensor cores", 2021).
#ifndef BITHEADS_CUDA_PACKED_CODES_CUH
#define BITHEADS_CUDA_PACKED_CODES_CUH

#include "packed_attention_pool_args.h"

namespace bitheads::cuda {

__device__ inline uint32_t shared_word(const uint8_t *address) {
  return *reinterpret_cast<const uint32_t *>(address);
}

__device__ inline uint2 shared_words(const uint8_t *address) {
  return *reinterpret_cast<const uint2 *>(address);
}

// For each quantization:
//   kRowBytes        a slice of a token's code;
//   kFillBytes       rows end at a multiple of it, with zeros behind the code;
//   step_fragment    b0 and b1 of the lane's token for a step (packed_attention_pool_args.h);
//   pair_fragments   of two tokens a (low halves) and b (high halves), the features of column
//                    `group` in the four 8-column tiles of a unit;
//   tile, column     where the 8 features of a unit that thread t of a quad stores are found:
//                    accumulator tile and column 2t or 2t + 1;
//   unit_scale       what makes a tile's sums sums of codes.
template <bh_quantization quantization>
struct PackedCodes;

template <>
struct PackedCodes<BH_SIGN> {
  static constexpr int kRowBytes = kSliceDim / 8;
  static constexpr int kFillBytes = kStepDim * kSignSteps / 8;

  __device__ static void step_fragment(const uint8_t *row, int step, int t, uint32_t &b0,
                                       uint32_t &b1) {
    const uint32_t word = shared_word(row + step / kSignSteps * 16 + t * 4);
    const uint32_t mask = 0x00010001u << step % kSignSteps;
    b0 = word & mask;
    b1 = word >> 8 & mask;
  }

  // Column `group` is byte group / 2 of the unit's word, and of tile j its bit 2j + group % 2.
  __device__ static void pair_fragments(const uint8_t *a, const uint8_t *b, int unit, int group,
                                        uint32_t (&tiles)[4]) {
    const uint32_t byte = static_cast<uint32_t>(group) / 2;
    const uint32_t bytes =
        __byte_perm(shared_word(a + unit * 4), shared_word(b + unit * 4), (4 + byte) << 8 | byte);
    const uint32_t bits = bytes >> group % 2;
#pragma unroll
    for (int j = 0; j < 4; ++j) tiles[j] = bits & 0x00010001u << 2 * j;
  }

  // Packed bits start at the top: feature i of a byte is its bit 7 - i.
  __device__ static constexpr int tile(int feature) { return (7 - feature) / 2; }
  __device__ static constexpr int column(int feature) { return (7 - feature) % 2; }
  __device__ static constexpr float unit_scale(int tile) {
    return static_cast<float>(1 << (24 - 2 * tile));
  }
};

template <>
struct PackedCodes<BH_UINT8> {
  static constexpr int kRowBytes = kSliceDim;
  static constexpr int kFillBytes = kUnitDim;

  __device__ static void step_fragment(const uint8_t *row, int step, int t, uint32_t &b0,
                                       uint32_t &b1) {
    const uint32_t word = shared_word(row + step * 16 + t * 4);
    b0 = word & 0x00FF00FFu;
    b1 = word >> 8 & 0x00FF00FFu;
  }

  // Column `group` is the unit's word of that number, and of tile j its byte j.
  __device__ static void pair_fragments(const uint8_t *a, const uint8_t *b, int unit, int group,
                                        uint32_t (&tiles)[4]) {
    const uint32_t word_a = shared_word(a + unit * kUnitDim + group * 4);
    const uint32_t word_b = shared_word(b + unit * kUnitDim + group * 4);
    const uint32_t low = __byte_perm(word_a, word_b, 0x5410);
    const uint32_t high = __byte_perm(word_a, word_b, 0x7632);
    tiles[0] = low & 0x00FF00FFu;
    tiles[1] = low >> 8 & 0x00FF00FFu;
    tiles[2] = high & 0x00FF00FFu;
    tiles[3] = high >> 8 & 0x00FF00FFu;
  }

  __device__ static constexpr int tile(int feature) { return feature % 4; }
  __device__ static constexpr int column(int feature) { return feature / 4; }
  __device__ static constexpr float unit_scale(int) { return 16777216.0f; }
};

template <>
struct PackedCodes<BH_HALF> {
  static constexpr int kRowBytes = kSliceDim * 2;
  static constexpr int kFillBytes = kUnitDim * 2;

  __device__ static void step_fragment(const uint8_t *row, int step, int t, uint32_t &b0,
                                       uint32_t &b1) {
    b0 = shared_word(row + step * 32 + t * 4);
    b1 = shared_word(row + step * 32 + 16 + t * 4);
  }

  // Column `group` is the unit's pair of words of that number, and of tile j its half j.
  __device__ static void pair_fragments(const uint8_t *a, const uint8_t *b, int unit, int group,
                                        uint32_t (&tiles)[4]) {
    const uint2 words_a = shared_words(a + unit * kFillBytes + group * 8);
    const uint2 words_b = shared_words(b + unit * kFillBytes + group * 8);
    tiles[0] = __byte_perm(words_a.x, words_b.x, 0x5410);
    tiles[1] = __byte_perm(words_a.x, words_b.x, 0x7632);
    tiles[2] = __byte_perm(words_a.y, words_b.y, 0x5410);
    tiles[3] = __byte_perm(words_a.y, words_b.y, 0x7632);
  }

  __device__ static constexpr int tile(int feature) { return feature % 4; }
  __device__ static constexpr int column(int feature) { return feature / 4; }
  __device__ static constexpr float unit_scale(int) { return 1.0f; }
};

}  // namespace bitheads::cuda

#endif
