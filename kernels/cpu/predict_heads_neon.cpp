// predict_heads, sixteen columns at a time in vectors of four: NEON, as every 64-bit ARM has it.
#include "predict_heads_neon.h"

#include "dispatch.h"

namespace bitheads {

void predict_heads_neon(const PredictHeadsCall &call) noexcept {
  run_predict_heads<Neon>(call);
}

int64_t run_dot_products_neon(int64_t multiply_adds) noexcept {
  return run_dots<Neon>(multiply_adds);
}

}  // namespace bitheads
