// predict_heads, eight columns at a time: the dot product of AVX-VNNI, which processors without
// AVX-512 have.
#include "dispatch.h"
#include "predict_heads_avx2.h"

namespace {

struct Avx2Vnni : Avx2 {
#if defined(BITHEADS_VNNI_OF_AVX512)
  static I32 dot(I32 sum, I32 a, I32 b) { return _mm256_dpwssd_epi32(sum, a, b); }
#else
  static I32 dot(I32 sum, I32 a, I32 b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }
#endif
};

}  // namespace

namespace bitheads {

void predict_heads_avx2_vnni(const PredictHeadsCall &call) noexcept {
  run_predict_heads<Avx2Vnni>(call);
}

int64_t run_dot_products_avx2_vnni(int64_t multiply_adds) noexcept {
  return run_dots<Avx2Vnni>(multiply_adds);
}

}  // namespace bitheads
