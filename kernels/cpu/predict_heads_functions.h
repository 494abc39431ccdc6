// predict_heads: the elementary functions of SPEC.md, and powers of two.
#ifndef BITHEADS_CPU_PREDICT_HEADS_FUNCTIONS_H
#define BITHEADS_CPU_PREDICT_HEADS_FUNCTIONS_H

#include <stdint.h>
#include <string.h>

#include "head_layout.h"

namespace {

using bitheads::MatrixView;

template <class V>
typename V::F32 exp2_minus(typename V::F32 z) {
  // ln(2)^i / i!
  constexpr float kCoefficients[] = {1.0f,          0.693147182f,   0.240226507f,
                                     0.0555041087f, 0.00961812911f, 0.00133335581f};
  z = V::min(z, V::broadcast_float(100.0f));
  const typename V::I32 k = V::round(z);
  const typename V::F32 f = V::sub(V::to_float(k), z);
  typename V::F32 p = V::broadcast_float(kCoefficients[5]);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) p = V::add(V::mul(p, f), V::broadcast_float(kCoefficients[i]));
  return V::mul(p, V::power_of_half(k));
}

template <class V>
typename V::F32 tanh_of(typename V::F32 y) {
  constexpr float kTwoLog2E = 2.88539008f;
  const typename V::F32 one = V::broadcast_float(1.0f);
  const typename V::F32 t = exp2_minus<V>(V::mul(V::magnitude(y), V::broadcast_float(kTwoLog2E)));
  return V::with_sign_of(V::div(V::sub(one, t), V::add(one, t)), y);
}

template <class V>
typename V::F32 affine(typename V::F32 sum, float alpha, float beta, const MatrixView &matrix,
                       int64_t lane) {
  const typename V::F32 scaled =
      V::mul(V::mul(sum, V::load_float(matrix.step + lane)), V::broadcast_float(alpha));
  const typename V::F32 moved =
      V::mul(V::broadcast_float(beta), V::load_float(matrix.row_sum + lane));
  return V::add(V::add(scaled, moved), V::load_float(matrix.bias + lane));
}

inline int32_t bits_of(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float power_of_two(int32_t exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

}  // namespace

#endif
