// What a call of pool_and_pack must satisfy on any device, checked once, so that kernels only
// compute.
#ifndef BITHEADS_POOL_AND_PACK_CHECKS_H
#define BITHEADS_POOL_AND_PACK_CHECKS_H

#include "bitheads/kernels.h"

namespace bitheads {

// float(num_layers) and the vote counts, kept as floats, are exact up to here.
inline constexpr int64_t kMaxLayers = int64_t{1} << 24;
inline constexpr int64_t kMaxDim = int64_t{1} << 32;

inline bool sizes_are_valid(const bh_pool_and_pack_args &args) noexcept {
  return args.num_layers >= 1 && args.num_layers <= kMaxLayers && args.dim >= 1 &&
         args.dim <= kMaxDim && args.rows >= 0 && args.seq >= 0 && args.num_tokens >= 0;
}

inline bool options_are_valid(const bh_pool_and_pack_args &args) noexcept {
  if (args.dtype != BH_FLOAT32 && args.dtype != BH_FLOAT16 && args.dtype != BH_BFLOAT16) {
    return false;
  }
  const bool is_sign = args.quantization == BH_SIGN;
  const bool is_uint8 = args.quantization == BH_UINT8;
  if (!is_sign && !is_uint8 && args.quantization != BH_HALF) return false;
  if (args.order == BH_SIGN_THEN_VOTE) {
    if (!is_sign || args.layer_weights != nullptr) return false;
  } else if (args.order != BH_POOL_THEN_SIGN) {
    return false;
  }
  if (args.thresholds != nullptr && !is_sign) return false;
  return (args.inverse_scale != nullptr) == is_uint8 && (args.zero_point != nullptr) == is_uint8;
}

inline bool pointers_are_valid(const bh_pool_and_pack_args &args) noexcept {
  if (args.layers == nullptr) return false;
  if (args.codes == nullptr && args.num_tokens > 0) return false;
  if (args.rows == 0) return true;
  if (args.lengths == nullptr || args.token_offsets == nullptr) return false;
  if (args.seq == 0) return true;
  for (int64_t i = 0; i < args.num_layers; ++i) {
    if (args.layers[i].data == nullptr) return false;
  }
  return true;
}

// Whether every row's tokens are inside the row and have room in `codes`. The arrays are readable
// copies of args.lengths and args.token_offsets, which may be device memory.
inline bool rows_are_valid(const bh_pool_and_pack_args &args, const int64_t *lengths,
                           const int64_t *token_offsets) noexcept {
  if (args.rows > 0 && (lengths == nullptr || token_offsets == nullptr)) return false;
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t length = lengths[row];
    const int64_t first_token = token_offsets[row];
    if (length < 0 || length > args.seq || length > args.num_tokens) return false;
    if (first_token < 0 || first_token > args.num_tokens - length) return false;
  }
  return true;
}

// All that can be said without reading what the pointers lead to.
inline bool arguments_are_valid(const bh_pool_and_pack_args &args) noexcept {
  return sizes_are_valid(args) && options_are_valid(args) && pointers_are_valid(args);
}

}  // namespace bitheads

#endif
