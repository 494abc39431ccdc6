// Queries as packed_attention_pool reads them. Host code without CUDA.
#ifndef BITHEADS_CUDA_PACKED_ATTENTION_POOL_LAYOUT_H
#define BITHEADS_CUDA_PACKED_ATTENTION_POOL_LAYOUT_H

#include <cmath>
#include <cstring>

#include "../half_bits.h"
#include "float16_scale.h"
#include "packed_attention_pool_args.h"

namespace bitheads::cuda {

// Bytes that lay_out_queries writes.
inline int64_t attention_pool_queries_bytes(int64_t columns, int64_t dim,
                                            bh_quantization quantization) {
  return ceil_div(columns, kGroupColumns) * num_steps(dim, quantization) * 2 * kFragmentBytes;
}

// From float32 [columns, dim] to fragments and float32 [columns] scales, powers of two.
//
// A query times 2^code_exponent / scale, so that its largest number is in [2^14, 2^15), is the sum
// of two float16: the error of a product is at most 2^-22 of itself or 2^-39 of the largest one.
//
// BH_INVALID_ARGUMENT for a number that is not finite, or so large, 2^118 or more, that the scale
// would not be a float32.
inline bh_status lay_out_queries(const float *queries, int64_t columns, int64_t dim,
                                 bh_quantization quantization, void *fragments,
                                 float *column_scale) {
  const int64_t steps = num_steps(dim, quantization);
  uint8_t *const bytes = static_cast<uint8_t *>(fragments);
  std::memset(bytes, 0,
              static_cast<size_t>(attention_pool_queries_bytes(columns, dim, quantization)));
  for (int64_t column = 0; column < columns; ++column) {
    const float *const query = queries + column * dim;
    double largest = 0;
    for (int64_t step = 0; step < steps; ++step) {
      for (int k = 0; k < kStepDim; ++k) {
        const int64_t feature = step_feature(step, k, quantization);
        if (feature >= dim) continue;
        if (!std::isfinite(query[feature])) return BH_INVALID_ARGUMENT;
        const double scaled = std::ldexp(std::fabs(static_cast<double>(query[feature])),
                                         code_exponent(step, quantization));
        if (scaled > largest) largest = scaled;
      }
    }
    const int exponent = scale_exponent(largest);
    if (exponent > 127) return BH_INVALID_ARGUMENT;
    column_scale[column] = std::ldexp(1.0f, exponent);

    const int row = static_cast<int>(column % kGroupColumns);
    uint8_t *const group = bytes + column / kGroupColumns * steps * 2 * kFragmentBytes;
    for (int64_t step = 0; step < steps; ++step) {
      const int up = code_exponent(step, quantization) - exponent;
      for (int k = 0; k < kStepDim; ++k) {
        const int64_t feature = step_feature(step, k, quantization);
        if (feature >= dim) continue;
        const float scaled =
            static_cast<float>(std::ldexp(static_cast<double>(query[feature]), up));
        const uint16_t high = half_of_float(scaled);
        const uint16_t low = half_of_float(scaled - float_of_half(high));
        const int lane = row % 8 * 4 + k % 8 / 2;
        const int word = row / 8 + k / 8 * 2;
        uint8_t *const to = group + step * 2 * kFragmentBytes + lane * 16 + word * 4 + k % 2 * 2;
        std::memcpy(to, &high, sizeof high);
        std::memcpy(to + kFragmentBytes, &low, sizeof low);
      }
    }
  }
  return BH_OK;
}

}  // namespace bitheads::cuda

#endif
