// Weights as grouped_dense reads them. Host code without CUDA.
#ifndef BITHEADS_CUDA_GROUPED_DENSE_LAYOUT_H
#define BITHEADS_CUDA_GROUPED_DENSE_LAYOUT_H

#include <cmath>

#include "../half_bits.h"
#include "bitheads/kernels.h"
#include "float16_scale.h"
#include "grouped_dense_args.h"

namespace bitheads::cuda {

// Halves of a row of laid out weights.
inline int64_t dense_row_halves(int64_t k) {
  return round_up(k, kDenseDepth);
}

// From float32 [n, k] to float16 [n, dense_row_halves(k)], each row divided by its own scale, a
// power of two, and padded with zeros; the scales are float32 [n]. Rounding moves a weight by at
// most 2^-11 of itself, or 2^-39 of the largest of its row. BH_INVALID_ARGUMENT for a weight that
// is not finite.
inline bh_status lay_out_dense(const float *weights, int64_t n, int64_t k, uint16_t *out,
                               float *scale) {
  const int64_t row_halves = dense_row_halves(k);
  for (int64_t i = 0; i < n; ++i) {
    const float *const row = weights + i * k;
    float largest = 0;
    for (int64_t j = 0; j < k; ++j) {
      if (!std::isfinite(row[j])) return BH_INVALID_ARGUMENT;
      largest = std::fmax(largest, std::fabs(row[j]));
    }
    const int exponent = scale_exponent(static_cast<double>(largest));
    const double inverse = std::ldexp(1.0, -exponent);
    for (int64_t j = 0; j < row_halves; ++j) {
      const double scaled = j < k ? static_cast<double>(row[j]) * inverse : 0.0;
      out[i * row_halves + j] = half_of_float(static_cast<float>(scaled));
    }
    scale[i] = std::ldexp(1.0f, exponent);
  }
  return BH_OK;
}

}  // namespace bitheads::cuda

#endif
