// The vectors of predict_heads for AVX-512 F, BW, DQ, VL; each level that includes this adds its
// dot product.
#ifndef BITHEADS_CPU_PREDICT_HEADS_AVX512_H
#define BITHEADS_CPU_PREDICT_HEADS_AVX512_H

#include <immintrin.h>

#include "predict_heads_loop.h"

namespace {

struct Avx512 {
  using I32 = __m512i;
  using F32 = __m512;
  using Words = __m512i;
  using Table = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kRows = 12;
  static constexpr int kPanels = 2;
  static constexpr int kWords = 32;
  static constexpr int kByteVectors = 2;
  static constexpr int kLookupTokens = 5;
  static constexpr int kLookups = 3;
  static constexpr int kTable = 32;
  static constexpr bool kOwnSums = false;
  static constexpr bool kOwnScores = false;

  static I32 zero() { return _mm512_setzero_si512(); }
  static I32 broadcast(int32_t x) { return _mm512_set1_epi32(x); }
  static I32 broadcast_at(const void *at) {
    int32_t bits;
    memcpy(&bits, at, sizeof bits);
    return _mm512_set1_epi32(bits);
  }
  static I32 load(const void *at) { return _mm512_loadu_si512(at); }
  static void store(void *at, I32 x) { _mm512_storeu_si512(at, x); }
  static I32 add_int(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
  static I32 sub_int(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
  static I32 max(I32 a, I32 b) { return _mm512_max_epi32(a, b); }
  template <int bits>
  static I32 shift_right(I32 x) {
    return _mm512_srai_epi32(x, bits);
  }
  static I32 shift_right_by(I32 x, int32_t bits) {
    return _mm512_sra_epi32(x, _mm_cvtsi32_si128(bits));
  }
  // floor(log2 x), for normal positive numbers.
  static I32 exponent(F32 x) {
    return _mm512_sub_epi32(_mm512_srli_epi32(_mm512_castps_si512(x), 23), broadcast(127));
  }
  static I32 times_255(I32 x) { return _mm512_sub_epi32(_mm512_slli_epi32(x, 8), x); }
  static I32 pairs(I32 low, I32 high) { return _mm512_or_si512(low, _mm512_slli_epi32(high, 16)); }
  static F32 to_float(I32 x) { return _mm512_cvtepi32_ps(x); }
  static I32 round(F32 x) { return _mm512_cvtps_epi32(x); }
  static I32 byte_pairs(const uint8_t *bytes) { return widen(bytes); }
  static void store_byte_pairs(const uint8_t *low, const uint8_t *high, uint8_t *out) {
    store(out, _mm512_or_si512(widen(low), _mm512_slli_epi16(widen(high), 8)));
  }
  static void store_int16(int16_t *out, I32 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(out), _mm512_cvtepi32_epi16(x));
  }

  static F32 broadcast_float(float x) { return _mm512_set1_ps(x); }
  static F32 load_float(const float *at) { return _mm512_loadu_ps(at); }
  static void store_float(float *at, F32 x) { _mm512_storeu_ps(at, x); }
  static F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  static F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
  static F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
  static F32 max_float(F32 a, F32 b) { return _mm512_max_ps(a, b); }
  static F32 power_of_half(I32 k) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(127), k), 23));
  }
  static F32 magnitude(F32 x) { return _mm512_andnot_ps(broadcast_float(-0.0f), x); }
  static F32 with_sign_of(F32 x, F32 sign) {
    return _mm512_or_ps(x, _mm512_and_ps(sign, broadcast_float(-0.0f)));
  }

  static Words no_words() { return _mm512_setzero_si512(); }
  static Words load_words(const uint16_t *at) { return _mm512_loadu_si512(at); }
  static void store_words(uint16_t *at, Words x) { _mm512_storeu_si512(at, x); }
  static Words add_words(Words a, Words b) { return _mm512_add_epi16(a, b); }
  static Words set_bits(Words words, const uint8_t *bits, int bit) {
    const Words more = _mm512_set1_epi16(static_cast<int16_t>(1 << bit));
    return _mm512_mask_add_epi16(words, mask_at(bits), words, more);
  }
  static void widen_bits(const uint8_t *bits, int16_t *out) {
    _mm512_storeu_si512(out, _mm512_maskz_mov_epi16(mask_at(bits), _mm512_set1_epi16(1)));
  }
  static void widen_bytes(const uint8_t *bytes, int16_t *out) {
    _mm512_storeu_si512(out, _mm512_sub_epi16(widen(bytes), _mm512_set1_epi16(128)));
  }
  // (sum - half) / 4, rounded down.
  static void store_quarter(int16_t *out, Words sum, int32_t half) {
    const Words centered = _mm512_sub_epi16(sum, _mm512_set1_epi16(static_cast<int16_t>(half)));
    _mm512_storeu_si512(out, _mm512_srai_epi16(centered, 2));
  }

  static Table no_table() { return _mm512_setzero_si512(); }
  static Table load_table(const uint16_t *at) { return _mm512_loadu_si512(at); }
  static void store_table(uint16_t *at, Table x) { _mm512_storeu_si512(at, x); }
  // `weight` holds it twice, so that one load fills the vector.
  static Table add_weight(Table table, int token, const uint32_t *weight) {
    constexpr uint32_t kEntries[] = {0xAAAAAAAA, 0xCCCCCCCC, 0xF0F0F0F0, 0xFF00FF00, 0xFFFF0000};
    return _mm512_mask_add_epi16(table, kEntries[token], table, broadcast_at(weight));
  }
  static Words index(Words bits) { return bits; }  // only the lowest five are looked at
  static Words look_up(Table table, Words index) { return _mm512_permutexvar_epi16(index, table); }
  static Words next(Words bits) { return _mm512_srli_epi16(bits, kLookupTokens); }

  static void keep(I32 &x) { __asm__ volatile("" : "+v"(x)); }

 private:
  static Words widen(const uint8_t *bytes) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)));
  }
  static __mmask32 mask_at(const uint8_t *bits) {
    uint32_t mask;
    memcpy(&mask, bits, sizeof mask);
    return mask;
  }
};

}  // namespace

#endif
