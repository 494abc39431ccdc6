// The vectors of predict_heads for NEON, and the sums of products that it has loops of its own for:
// the products of a pair do not go into one lane here, but one factor may be any lane of a vector.
#ifndef BITHEADS_CPU_PREDICT_HEADS_NEON_H
#define BITHEADS_CPU_PREDICT_HEADS_NEON_H

#include <arm_neon.h>

#include "predict_heads_loop.h"

namespace {

struct Neon {
  using I32 = int32x4_t;
  using F32 = float32x4_t;
  using Words = uint16x8_t;
  using Table = uint8x16x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kRows = 5;
  static constexpr int kPanels = 1;
  static constexpr int kWords = 8;
  static constexpr int kByteVectors = 2;
  static constexpr int kLookupTokens = 5;
  static constexpr int kLookups = 3;
  static constexpr int kTable = 32;
  static constexpr bool kOwnSums = true;
  static constexpr bool kOwnScores = false;

  static I32 zero() { return vdupq_n_s32(0); }
  static I32 broadcast(int32_t x) { return vdupq_n_s32(x); }
  static I32 broadcast_at(const void *at) {
    int32_t bits;
    memcpy(&bits, at, sizeof bits);
    return vdupq_n_s32(bits);
  }
  static I32 load(const void *at) {
    return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t *>(at)));
  }
  static void store(void *at, I32 x) {
    vst1q_u8(static_cast<uint8_t *>(at), vreinterpretq_u8_s32(x));
  }
  // Only what bh_run_dot_products runs: as many multiplications as in the loops below.
  static I32 dot(I32 sum, I32 a, I32 b) {
    const int16x8_t a_s16 = vreinterpretq_s16_s32(a);
    const int16x8_t b_s16 = vreinterpretq_s16_s32(b);
    const I32 low = vmlal_s16(sum, vget_low_s16(a_s16), vget_low_s16(b_s16));
    return vmlal_high_s16(low, a_s16, b_s16);
  }
  static I32 add_int(I32 a, I32 b) { return vaddq_s32(a, b); }
  static I32 sub_int(I32 a, I32 b) { return vsubq_s32(a, b); }
  static I32 max(I32 a, I32 b) { return vmaxq_s32(a, b); }
  template <int bits>
  static I32 shift_right(I32 x) {
    return vshrq_n_s32(x, bits);
  }
  static I32 shift_right_by(I32 x, int32_t bits) { return vshlq_s32(x, vdupq_n_s32(-bits)); }
  // floor(log2 x), for normal positive numbers.
  static I32 exponent(F32 x) {
    return vsubq_s32(vshrq_n_s32(vreinterpretq_s32_f32(x), 23), vdupq_n_s32(127));
  }
  static I32 times_255(I32 x) { return vsubq_s32(vshlq_n_s32(x, 8), x); }
  static I32 pairs(I32 low, I32 high) { return vsliq_n_s32(low, high, 16); }
  static F32 to_float(I32 x) { return vcvtq_f32_s32(x); }
  static I32 round(F32 x) { return vcvtnq_s32_f32(x); }
  // The bytes of one side of eight pairs, then those of the other: as sum_byte_pairs wants them.
  static void store_byte_pairs(const uint8_t *low, const uint8_t *high, uint8_t *out) {
    vst1_u8(out, vld1_u8(low));
    vst1_u8(out + 8, vld1_u8(high));
  }
  static void store_int16(int16_t *out, I32 x) { vst1_s16(out, vmovn_s32(x)); }

  static F32 broadcast_float(float x) { return vdupq_n_f32(x); }
  static F32 load_float(const float *at) { return vld1q_f32(at); }
  static void store_float(float *at, F32 x) { vst1q_f32(at, x); }
  static F32 add(F32 a, F32 b) { return vaddq_f32(a, b); }
  static F32 sub(F32 a, F32 b) { return vsubq_f32(a, b); }
  static F32 mul(F32 a, F32 b) { return vmulq_f32(a, b); }
  static F32 div(F32 a, F32 b) { return vdivq_f32(a, b); }
  static F32 min(F32 a, F32 b) { return vminq_f32(a, b); }
  static F32 max_float(F32 a, F32 b) { return vmaxq_f32(a, b); }
  static F32 power_of_half(I32 k) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vsubq_s32(vdupq_n_s32(127), k), 23));
  }
  static F32 magnitude(F32 x) { return vabsq_f32(x); }
  static F32 with_sign_of(F32 x, F32 sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, x); }

  static Words no_words() { return vdupq_n_u16(0); }
  static Words load_words(const uint16_t *at) { return vld1q_u16(at); }
  static void store_words(uint16_t *at, Words x) { vst1q_u16(at, x); }
  static Words add_words(Words a, Words b) { return vaddq_u16(a, b); }
  static Words set_bits(Words words, const uint8_t *bits, int bit) {
    const Words more = vdupq_n_u16(static_cast<uint16_t>(1 << bit));
    return vorrq_u16(words, vandq_u16(all_ones_where_set(bits), more));
  }
  static void widen_bits(const uint8_t *bits, int16_t *out) {
    vst1q_s16(out, vreinterpretq_s16_u16(vshrq_n_u16(all_ones_where_set(bits), 15)));
  }
  static void widen_bytes(const uint8_t *bytes, int16_t *out) {
    vst1q_s16(out, vreinterpretq_s16_u16(vsubl_u8(vld1_u8(bytes), vdup_n_u8(128))));
  }
  // (sum - half) / 4, rounded down.
  static void store_quarter(int16_t *out, Words sum, int32_t half) {
    const int16x8_t centered =
        vreinterpretq_s16_u16(vsubq_u16(sum, vdupq_n_u16(static_cast<uint16_t>(half))));
    vst1q_s16(out, vshrq_n_s16(centered, 2));
  }

  static Table no_table() {
    const uint8x16_t none = vdupq_n_u8(0);
    return {{none, none, none, none}};
  }
  static Table load_table(const uint16_t *at) {
    return vld1q_u8_x4(reinterpret_cast<const uint8_t *>(at));
  }
  static void store_table(uint16_t *at, Table x) {
    vst1q_u8_x4(reinterpret_cast<uint8_t *>(at), x);
  }
  static Table add_weight(Table table, int token, const uint32_t *weight) {
    const Words more = vdupq_n_u16(static_cast<uint16_t>(*weight & 0xFFFF));
    return {{add_where<0>(table.val[0], token, more), add_where<8>(table.val[1], token, more),
             add_where<16>(table.val[2], token, more), add_where<24>(table.val[3], token, more)}};
  }
  // The lowest five bits become the places of the entry's two bytes.
  static Words index(Words bits) {
    const Words entry = vandq_u16(bits, vdupq_n_u16(31));
    return vmlaq_u16(vdupq_n_u16(0x0100), entry, vdupq_n_u16(0x0202));
  }
  static Words look_up(Table table, Words index) {
    return vreinterpretq_u16_u8(vqtbl4q_u8(table, vreinterpretq_u8_u16(index)));
  }
  static Words next(Words bits) { return vshrq_n_u16(bits, kLookupTokens); }

  static void keep(I32 &x) { __asm__ volatile("" : "+w"(x)); }

  // The sums of a tile: some rows by the 16 columns of a panel.
  template <int rows>
  static void sum_products(const TileArgs &args, I32 (&sum)[rows][kPanel / kLanes]) {
    constexpr int kPairs = 4;  // of inputs in a vector
    const int16_t *a = args.a;
    const int16_t *b = args.b;
    for (int64_t pair = 0; pair < args.pairs; pair += kPairs, a += 2 * kPairs) {
      int16x8_t inputs[rows];
#pragma GCC unroll 16
      for (int row = 0; row < rows; ++row) inputs[row] = vld1q_s16(a + row * args.a_stride);
      add_pair<0, rows>(sum, inputs, b);
      add_pair<1, rows>(sum, inputs, b + 2 * kPanel);
      add_pair<2, rows>(sum, inputs, b + 4 * kPanel);
      add_pair<3, rows>(sum, inputs, b + 6 * kPanel);
      b += 2 * kPairs * kPanel;
    }
  }

  // Sums over pairs of tokens, weights [pairs, columns] by codes of eight features.
  template <int columns>
  static void sum_byte_pairs(const uint8_t *pairs, const uint32_t *weights, int64_t num_pairs,
                             I32 (&sum)[columns][kByteVectors]) {
    for (int64_t pair = 0; pair < num_pairs; ++pair, pairs += 2 * kDepthMultiple) {
      const uint8x16_t codes = vld1q_u8(pairs);
      const int16x8_t first = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes)));
      const int16x8_t second = vreinterpretq_s16_u16(vmovl_high_u8(codes));
      add_columns<0, columns>(sum, first, second, weights);
      if constexpr (columns > 4) add_columns<4, columns>(sum, first, second, weights);
      weights += columns;
    }
  }

 private:
  // Lane i of the result is all ones where bit i of the byte is set.
  static Words all_ones_where_set(const uint8_t *bits) {
    constexpr uint16_t kBits[] = {1, 2, 4, 8, 16, 32, 64, 128};
    return vtstq_u16(vdupq_n_u16(*bits), vld1q_u16(kBits));
  }

  // Entries `first` to first + 7 of a table.
  template <int first>
  static uint8x16_t add_where(uint8x16_t entries, int token, Words more) {
    constexpr uint16_t kEntries[] = {first,     first + 1, first + 2, first + 3,
                                     first + 4, first + 5, first + 6, first + 7};
    const Words chosen =
        vtstq_u16(vld1q_u16(kEntries), vdupq_n_u16(static_cast<uint16_t>(1 << token)));
    return vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(entries), vandq_u16(chosen, more)));
  }

  // Pair number `pair` of every row's inputs, by the pairs of 16 columns.
  template <int pair, int rows>
  static void add_pair(I32 (&sum)[rows][kPanel / kLanes], const int16x8_t (&inputs)[rows],
                       const int16_t *b) {
    const int16x8x2_t left = vld2q_s16(b);
    const int16x8x2_t right = vld2q_s16(b + kPanel);
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
      add_product<2 * pair>(sum[row], inputs[row], left.val[0], right.val[0]);
      add_product<2 * pair + 1>(sum[row], inputs[row], left.val[1], right.val[1]);
    }
    // Or GCC 12 would load several pairs ahead, and keep sums in memory for it.
    __asm__ volatile("" : : : "memory");
  }

  template <int lane>
  static void add_product(I32 (&sum)[kPanel / kLanes], int16x8_t input, int16x8_t left,
                          int16x8_t right) {
    sum[0] = vmlal_laneq_s16(sum[0], vget_low_s16(left), input, lane);
    sum[1] = vmlal_high_laneq_s16(sum[1], left, input, lane);
    sum[2] = vmlal_laneq_s16(sum[2], vget_low_s16(right), input, lane);
    sum[3] = vmlal_high_laneq_s16(sum[3], right, input, lane);
  }

  // Columns `first` to first + 3, as far as there are any: four have one vector of weights. There
  // is room for four behind the last ones.
  template <int first, int columns>
  static void add_columns(I32 (&sum)[columns][kByteVectors], int16x8_t codes_of_first,
                          int16x8_t codes_of_second, const uint32_t *weights) {
    const int16x8_t four = vreinterpretq_s16_u32(vld1q_u32(weights + first));
    add_column<0>(sum[first], codes_of_first, codes_of_second, four);
    if constexpr (columns > first + 1) {
      add_column<1>(sum[first + 1], codes_of_first, codes_of_second, four);
    }
    if constexpr (columns > first + 2) {
      add_column<2>(sum[first + 2], codes_of_first, codes_of_second, four);
    }
    if constexpr (columns > first + 3) {
      add_column<3>(sum[first + 3], codes_of_first, codes_of_second, four);
    }
  }

  template <int column>
  static void add_column(I32 (&sum)[kByteVectors], int16x8_t codes_of_first,
                         int16x8_t codes_of_second, int16x8_t weights) {
    sum[0] = vmlal_laneq_s16(sum[0], vget_low_s16(codes_of_first), weights, 2 * column);
    sum[1] = vmlal_high_laneq_s16(sum[1], codes_of_first, weights, 2 * column);
    sum[0] = vmlal_laneq_s16(sum[0], vget_low_s16(codes_of_second), weights, 2 * column + 1);
    sum[1] = vmlal_high_laneq_s16(sum[1], codes_of_second, weights, 2 * column + 1);
  }
};

}  // namespace

#endif
