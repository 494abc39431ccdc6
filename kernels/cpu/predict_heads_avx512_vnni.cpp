// predict_heads, sixteen columns at a time: the dot product of VNNI.
#include "dispatch.h"
#include "predict_heads_avx512.h"

namespace {

struct Avx512Vnni : Avx512 {
  static I32 dot(I32 sum, I32 a, I32 b) { return _mm512_dpwssd_epi32(sum, a, b); }
};

}  // namespace

namespace bitheads {

void predict_heads_avx512_vnni(const PredictHeadsCall &call) noexcept {
  run_predict_heads<Avx512Vnni>(call);
}

int64_t run_dot_products_avx512_vnni(int64_t multiply_adds) noexcept {
  return run_dots<Avx512Vnni>(multiply_adds);
}

}  // namespace bitheads
