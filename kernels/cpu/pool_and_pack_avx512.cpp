// pool_and_pack, sixteen floats at a time: AVX-512 F, BW, DQ, VL.
#include <immintrin.h>

#include "dispatch.h"
#include "pool_and_pack_loop.h"

namespace {

struct F32x16 {
  using F32 = __m512;
  static constexpr int kLanes = 16;

  template <bh_dtype dtype>
  static F32 load(const uint8_t *bytes) {
    if (dtype == BH_FLOAT32) return _mm512_loadu_ps(bytes);
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes));
    if (dtype == BH_FLOAT16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }

  static F32 broadcast(float x) { return _mm512_set1_ps(x); }
  static F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
  static uint64_t greater(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static uint64_t equal(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

  static F32 add_one_if_greater(F32 count, F32 a, F32 b) {
    return _mm512_mask_add_ps(count, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), count, broadcast(1.0f));
  }

  static void store_uint8(uint8_t *out, F32 x) {
    // max returns its second operand when the first is NaN.
    const F32 clamped = _mm512_min_ps(_mm512_max_ps(x, broadcast(0.0f)), broadcast(255.0f));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out),
                     _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(clamped)));
  }

  static void store_half(uint8_t *out, F32 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(out),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

}  // namespace

namespace bitheads {

void pool_and_pack_avx512(const bh_pool_and_pack_args &args) noexcept {
  run_pool_and_pack<F32x16>(args);
}

}  // namespace bitheads
