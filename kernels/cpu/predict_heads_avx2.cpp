// predict_heads, eight columns at a time: AVX2.
#include "predict_heads_avx2.h"

#include "dispatch.h"

namespace bitheads {

void predict_heads_avx2(const PredictHeadsCall &call) noexcept {
  run_predict_heads<Avx2>(call);
}

int64_t run_dot_products_avx2(int64_t multiply_adds) noexcept {
  return run_dots<Avx2>(multiply_adds);
}

}  // namespace bitheads
