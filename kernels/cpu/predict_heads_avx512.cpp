// predict_heads, sixteen columns at a time: multiply, add pairs, add.
#include "predict_heads_avx512.h"

#include "dispatch.h"

namespace {

struct Avx512Madd : Avx512 {
  static I32 dot(I32 sum, I32 a, I32 b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
};

}  // namespace

namespace bitheads {

void predict_heads_avx512(const PredictHeadsCall &call) noexcept {
  run_predict_heads<Avx512Madd>(call);
}

int64_t run_dot_products_avx512(int64_t multiply_adds) noexcept {
  return run_dots<Avx512Madd>(multiply_adds);
}

}  // namespace bitheads
