// pool_and_pack in portable C++: what the SIMD levels must agree with, and what runs where there
// are none. The "vector" is an array whose loops a compiler can vectorize for its baseline.
#include <math.h>

#include "../half_bits.h"
#include "dispatch.h"
#include "pool_and_pack_loop.h"

namespace {

using bitheads::float_of_bits;
using bitheads::float_of_half;
using bitheads::half_of_float;

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
