// float16 as its bits, for compilers without the type.
#ifndef BITHEADS_HALF_BITS_H
#define BITHEADS_HALF_BITS_H

#include <cstdint>
#include <cstring>

namespace bitheads {

// `static`, so that no file gets these from one that was compiled for a newer processor.

static inline uint32_t bits_of_float(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Exact: every float16 is a float32.
static inline float float_of_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  // Normal numbers move their exponent bias from 15 to 127, infinity and NaN to the top exponent.
  const uint32_t bias = magnitude >= 0x7C00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
  // A subnormal is its integer value times 2^-24.
  const uint32_t subnormal =
      bits_of_float(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
  return float_of_bits(sign | (magnitude < 0x0400u ? subnormal : (magnitude << 13) + bias));
}

// Round half to even; overflow to infinity; subnormals kept; a NaN becomes the quiet NaN.
static inline uint16_t half_of_float(float x) {
  const uint32_t bits = bits_of_float(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u;
  } else if (magnitude >= 0x477FF000u) {  // 65520, halfway between float16's maximum and 2^16
    half = 0x7C00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: subnormal or zero
    // At 0.5 a float's last bit is 2^-24, so the addition rounds as float16 subnormals do.
    half = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    const uint32_t odd = magnitude >> 13 & 1u;
    half = (magnitude - ((127u - 15u) << 23) + 0x0FFFu + odd) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

}  // namespace bitheads

#endif
