// pool_and_pack in portable C++: what the SIMD levels must agree with, and what runs where there
// are none. The "vector" is an array whose loops a compiler can vectorize for its baseline.
#include <math.h>

#include "dispatch.h"
#include "pool_and_pack_loop.h"

namespace {

inline float float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline uint32_t bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

// Exact: every float16 is a float32.
inline float float_of_half(uint16_t half) {
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
inline uint16_t half_of_float(float x) {
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

struct F32x64 {
  struct F32 {
    float lane[64];
  };
  static constexpr int kLanes = 64;

  template <bh_dtype dtype>
  static F32 load(const uint8_t *bytes) {
    F32 x;
    if (dtype == BH_FLOAT32) {
      memcpy(x.lane, bytes, sizeof x.lane);
      return x;
    }
    uint16_t halves[kLanes];
    memcpy(halves, bytes, sizeof halves);
    for (int i = 0; i < kLanes; ++i) {
      x.lane[i] = dtype == BH_FLOAT16 ? float_of_half(halves[i])
                                      : float_of_bits(static_cast<uint32_t>(halves[i]) << 16);
    }
    return x;
  }

  static F32 broadcast(float x) {
    F32 all;
    for (int i = 0; i < kLanes; ++i) all.lane[i] = x;
    return all;
  }

  static F32 add(F32 a, const F32 &b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] += b.lane[i];
    return a;
  }

  static F32 mul(F32 a, const F32 &b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] *= b.lane[i];
    return a;
  }

  static F32 div(F32 a, const F32 &b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] /= b.lane[i];
    return a;
  }

  static uint64_t greater(const F32 &a, const F32 &b) {
    uint64_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= uint64_t{a.lane[i] > b.lane[i]} << i;
    return bits;
  }

  static uint64_t equal(const F32 &a, const F32 &b) {
    uint64_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= uint64_t{a.lane[i] == b.lane[i]} << i;
    return bits;
  }

  static F32 add_one_if_greater(F32 count, const F32 &a, const F32 &b) {
    for (int i = 0; i < kLanes; ++i) count.lane[i] += a.lane[i] > b.lane[i] ? 1.0f : 0.0f;
    return count;
  }

  static void store_uint8(uint8_t *out, const F32 &x) {
    for (int i = 0; i < kLanes; ++i) {
      const float positive = x.lane[i] > 0.0f ? x.lane[i] : 0.0f;  // also for NaN
      const float clamped = positive < 255.0f ? positive : 255.0f;
      out[i] = static_cast<uint8_t>(nearbyintf(clamped));
    }
  }

  static void store_half(uint8_t *out, const F32 &x) {
    for (int i = 0; i < kLanes; ++i) {
      const uint16_t half = half_of_float(x.lane[i]);
      memcpy(out + 2 * i, &half, sizeof half);
    }
  }
};

}  // namespace

namespace bitheads {

void pool_and_pack_serial(const bh_pool_and_pack_args &args) noexcept {
  run_pool_and_pack<F32x64>(args);
}

}  // namespace bitheads
