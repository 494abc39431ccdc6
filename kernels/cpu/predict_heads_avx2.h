// What predict_heads does with eight columns at a time, for the levels with AVX2.
#ifndef BITHEADS_CPU_PREDICT_HEADS_AVX2_H
#define BITHEADS_CPU_PREDICT_HEADS_AVX2_H

#include <immintrin.h>

#include "predict_heads_loop.h"

namespace {

struct Avx2 {
  using I32 = __m256i;
  using F32 = __m256;
  using Words = __m256i;
  using Table = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kRows = 6;
  static constexpr int kPanels = 1;
  static constexpr int kWords = 16;
  static constexpr int kByteVectors = 1;
  static constexpr int kLookupTokens = 3;
  static constexpr int kLookups = 5;
  static constexpr int kTable = 16;
  static constexpr bool kOwnSums = false;
  static constexpr bool kOwnScores = false;

  static I32 zero() { return _mm256_setzero_si256(); }
  static I32 broadcast(int32_t x) { return _mm256_set1_epi32(x); }
  static I32 broadcast_at(const void *at) {
    int32_t bits;
    memcpy(&bits, at, sizeof bits);
    return _mm256_set1_epi32(bits);
  }
  static I32 load(const void *at) { return _mm256_loadu_si256(static_cast<const __m256i *>(at)); }
  static void store(void *at, I32 x) { _mm256_storeu_si256(static_cast<__m256i *>(at), x); }
  static I32 dot(I32 sum, I32 a, I32 b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
  static I32 add_int(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
  static I32 sub_int(I32 a, I32 b) { return _mm256_sub_epi32(a, b); }
  static I32 max(I32 a, I32 b) { return _mm256_max_epi32(a, b); }
  template <int bits>
  static I32 shift_right(I32 x) {
    return _mm256_srai_epi32(x, bits);
  }
  static I32 shift_right_by(I32 x, int32_t bits) {
    return _mm256_sra_epi32(x, _mm_cvtsi32_si128(bits));
  }
  // floor(log2 x), for normal positive numbers.
  static I32 exponent(F32 x) {
    return _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(x), 23), broadcast(127));
  }
  static I32 times_255(I32 x) { return _mm256_sub_epi32(_mm256_slli_epi32(x, 8), x); }
  static I32 pairs(I32 low, I32 high) { return _mm256_or_si256(low, _mm256_slli_epi32(high, 16)); }
  static F32 to_float(I32 x) { return _mm256_cvtepi32_ps(x); }
  static I32 round(F32 x) { return _mm256_cvtps_epi32(x); }
  static I32 byte_pairs(const uint8_t *bytes) { return widen(bytes); }
  static void store_byte_pairs(const uint8_t *low, const uint8_t *high, uint8_t *out) {
    store(out, _mm256_or_si256(widen(low), _mm256_slli_epi16(widen(high), 8)));
  }
  static void store_int16(int16_t *out, I32 x) {
    const __m128i low = _mm256_castsi256_si128(x);
    const __m128i high = _mm256_extracti128_si256(x, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out), _mm_packs_epi32(low, high));
  }

  static F32 broadcast_float(float x) { return _mm256_set1_ps(x); }
  static F32 load_float(const float *at) { return _mm256_loadu_ps(at); }
  static void store_float(float *at, F32 x) { _mm256_storeu_ps(at, x); }
  static F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
  static F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
  static F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
  static F32 max_float(F32 a, F32 b) { return _mm256_max_ps(a, b); }
  static F32 power_of_half(I32 k) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), k), 23));
  }
  static F32 magnitude(F32 x) { return _mm256_andnot_ps(broadcast_float(-0.0f), x); }
  static F32 with_sign_of(F32 x, F32 sign) {
    return _mm256_or_ps(x, _mm256_and_ps(sign, broadcast_float(-0.0f)));
  }

  static Words no_words() { return _mm256_setzero_si256(); }
  static Words load_words(const uint16_t *at) { return load(at); }
  static void store_words(uint16_t *at, Words x) { store(at, x); }
  static Words add_words(Words a, Words b) { return _mm256_add_epi16(a, b); }
  static Words set_bits(Words words, const uint8_t *bits, int bit) {
    const Words more = _mm256_set1_epi16(static_cast<int16_t>(1 << bit));
    return _mm256_or_si256(words, _mm256_and_si256(all_ones_where_set(bits), more));
  }
  static void widen_bits(const uint8_t *bits, int16_t *out) {
    store(out, _mm256_srli_epi16(all_ones_where_set(bits), 15));
  }
  static void widen_bytes(const uint8_t *bytes, int16_t *out) {
    store(out, _mm256_sub_epi16(widen(bytes), _mm256_set1_epi16(128)));
  }
  // (sum - half) / 4, rounded down.
  static void store_quarter(int16_t *out, Words sum, int32_t half) {
    const Words centered = _mm256_sub_epi16(sum, _mm256_set1_epi16(static_cast<int16_t>(half)));
    store(out, _mm256_srai_epi16(centered, 2));
  }

  // Eight entries of two bytes, twice: a shuffle stays inside its half.
  static Table no_table() { return _mm256_setzero_si256(); }
  static Table load_table(const uint16_t *at) { return load(at); }
  static void store_table(uint16_t *at, Table x) { store(at, x); }
  // `weight` holds it twice, so that one load fills the vector.
  static Table add_weight(Table table, int token, const uint32_t *weight) {
    const __m128i entry = _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7);
    const __m128i bit = _mm_set1_epi16(static_cast<int16_t>(1 << token));
    const Words chosen =
        _mm256_broadcastsi128_si256(_mm_cmpeq_epi16(_mm_and_si128(entry, bit), bit));
    return _mm256_add_epi16(table, _mm256_and_si256(chosen, broadcast_at(weight)));
  }
  // The lowest three bits become the places of the entry's two bytes.
  static Words index(Words bits) {
    const Words entry = _mm256_and_si256(bits, _mm256_set1_epi16(7));
    return _mm256_add_epi16(_mm256_mullo_epi16(entry, _mm256_set1_epi16(0x0202)),
                            _mm256_set1_epi16(0x0100));
  }
  static Words look_up(Table table, Words index) { return _mm256_shuffle_epi8(table, index); }
  static Words next(Words bits) { return _mm256_srli_epi16(bits, kLookupTokens); }

  static void keep(I32 &x) { __asm__ volatile("" : "+x"(x)); }

 private:
  static Words widen(const uint8_t *bytes) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)));
  }
  static Words all_ones_where_set(const uint8_t *bits) {
    int16_t sixteen;
    memcpy(&sixteen, bits, sizeof sixteen);
    const Words lane = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
                                         8192, 16384, -32768);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(sixteen), lane), lane);
  }
};

}  // namespace

#endif
