// pool_and_pack, eight floats at a time: AVX2 and F16C.
#include <immintrin.h>

#include "dispatch.h"
#include "pool_and_pack_loop.h"

namespace {

struct F32x8 {
  using F32 = __m256;
  static constexpr int kLanes = 8;

  template <bh_dtype dtype>
  static F32 load(const uint8_t *bytes) {
    if (dtype == BH_FLOAT32) return _mm256_loadu_ps(reinterpret_cast<const float *>(bytes));
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes));
    if (dtype == BH_FLOAT16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }

  static F32 broadcast(float x) { return _mm256_set1_ps(x); }
  static F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }

  static uint64_t greater(F32 a, F32 b) {
    return static_cast<uint64_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
  }

  static uint64_t equal(F32 a, F32 b) {
    return static_cast<uint64_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
  }

  static F32 add_one_if_greater(F32 count, F32 a, F32 b) {
    return add(count, _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ), broadcast(1.0f)));
  }

  static void store_uint8(uint8_t *out, F32 x) {
    // max returns its second operand when the first is NaN.
    const F32 clamped = _mm256_min_ps(_mm256_max_ps(x, broadcast(0.0f)), broadcast(255.0f));
    const __m256i codes_i32x8 = _mm256_cvtps_epi32(clamped);
    const __m128i codes_u16x8 = _mm_packus_epi32(_mm256_castsi256_si128(codes_i32x8),
                                                 _mm256_extracti128_si256(codes_i32x8, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i *>(out), _mm_packus_epi16(codes_u16x8, codes_u16x8));
  }

  static void store_half(uint8_t *out, F32 x) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out),
                     _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

}  // namespace

namespace bitheads {

void pool_and_pack_avx2(const bh_pool_and_pack_args &args) noexcept {
  run_pool_and_pack<F32x8>(args);
}

}  // namespace bitheads
