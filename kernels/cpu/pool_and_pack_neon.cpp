// pool_and_pack, 64 floats at a time: NEON, as every 64-bit ARM has it.
#include <arm_neon.h>

#include "dispatch.h"
#include "pool_and_pack_loop.h"

// A block that is passed by its address would be written to memory in every round.
#define BITHEADS_INLINE __attribute__((always_inline)) inline

namespace {

// Sixteen floats in four registers, by name: GCC 12 keeps these apart where it would put an array
// into memory.
struct F32x16 {
  float32x4_t a, b, c, d;
};

template <bh_dtype dtype>
BITHEADS_INLINE F32x16 load16(const uint8_t *bytes) {
  if (dtype == BH_FLOAT32) {
    return {vreinterpretq_f32_u8(vld1q_u8(bytes)), vreinterpretq_f32_u8(vld1q_u8(bytes + 16)),
            vreinterpretq_f32_u8(vld1q_u8(bytes + 32)), vreinterpretq_f32_u8(vld1q_u8(bytes + 48))};
  }
  const uint16x8_t low = vreinterpretq_u16_u8(vld1q_u8(bytes));
  const uint16x8_t high = vreinterpretq_u16_u8(vld1q_u8(bytes + 16));
  if (dtype == BH_FLOAT16) {
    const float16x8_t low_f16 = vreinterpretq_f16_u16(low);
    const float16x8_t high_f16 = vreinterpretq_f16_u16(high);
    return {vcvt_f32_f16(vget_low_f16(low_f16)), vcvt_high_f32_f16(low_f16),
            vcvt_f32_f16(vget_low_f16(high_f16)), vcvt_high_f32_f16(high_f16)};
  }
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(low, 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(high, 16))};
}

BITHEADS_INLINE F32x16 add16(F32x16 x, F32x16 y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}

BITHEADS_INLINE F32x16 mul16(F32x16 x, F32x16 y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}

BITHEADS_INLINE F32x16 div16(F32x16 x, F32x16 y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}

BITHEADS_INLINE float32x4_t add_one(float32x4_t count, uint32x4_t mask) {
  const uint32x4_t one = vreinterpretq_u32_f32(vdupq_n_f32(1.0f));
  return vaddq_f32(count, vreinterpretq_f32_u32(vandq_u32(mask, one)));
}

BITHEADS_INLINE F32x16 add_one_if_greater16(F32x16 count, F32x16 x, F32x16 y) {
  return {add_one(count.a, vcgtq_f32(x.a, y.a)), add_one(count.b, vcgtq_f32(x.b, y.b)),
          add_one(count.c, vcgtq_f32(x.c, y.c)), add_one(count.d, vcgtq_f32(x.d, y.d))};
}

// There is no movemask: each lane keeps a bit of its own, and neighbours are added later.
BITHEADS_INLINE uint8x16_t own_bits(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  constexpr uint8_t kBits[] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
  const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d));
  const uint8x16_t all = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
  return vandq_u8(all, vld1q_u8(kBits));
}

BITHEADS_INLINE uint8x16_t greater16(F32x16 x, F32x16 y) {
  return own_bits(vcgtq_f32(x.a, y.a), vcgtq_f32(x.b, y.b), vcgtq_f32(x.c, y.c),
                  vcgtq_f32(x.d, y.d));
}

BITHEADS_INLINE uint8x16_t equal16(F32x16 x, F32x16 y) {
  return own_bits(vceqq_f32(x.a, y.a), vceqq_f32(x.b, y.b), vceqq_f32(x.c, y.c),
                  vceqq_f32(x.d, y.d));
}

BITHEADS_INLINE uint64_t together(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d) {
  uint8x16_t bits = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
  bits = vpaddq_u8(bits, bits);
  return vgetq_lane_u64(vreinterpretq_u64_u8(bits), 0);
}

BITHEADS_INLINE void store_uint8_16(uint8_t *out, F32x16 x) {
  // The conversion rounds half to even, takes NaN and what is below 0 to 0, and saturates, as the
  // narrowing does.
  const uint16x8_t low = vqmovn_high_u32(vqmovn_u32(vcvtnq_u32_f32(x.a)), vcvtnq_u32_f32(x.b));
  const uint16x8_t high = vqmovn_high_u32(vqmovn_u32(vcvtnq_u32_f32(x.c)), vcvtnq_u32_f32(x.d));
  vst1q_u8(out, vqmovn_high_u16(vqmovn_u16(low), high));
}

BITHEADS_INLINE void store_half16(uint8_t *out, F32x16 x) {
  const float16x8_t low = vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b);
  const float16x8_t high = vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d);
  vst1q_u8(out, vreinterpretq_u8_f16(low));
  vst1q_u8(out + 16, vreinterpretq_u8_f16(high));
}

// A whole block of the loop, which so has no arrays of vectors.
struct F32x64 {
  struct F32 {
    F32x16 a, b, c, d;
  };
  static constexpr int kLanes = 64;

  template <bh_dtype dtype>
  static BITHEADS_INLINE F32 load(const uint8_t *bytes) {
    constexpr int kBytes = 16 * (dtype == BH_FLOAT32 ? 4 : 2);
    return {load16<dtype>(bytes), load16<dtype>(bytes + kBytes), load16<dtype>(bytes + 2 * kBytes),
            load16<dtype>(bytes + 3 * kBytes)};
  }

  static BITHEADS_INLINE F32 broadcast(float x) {
    const float32x4_t four = vdupq_n_f32(x);
    const F32x16 sixteen = {four, four, four, four};
    return {sixteen, sixteen, sixteen, sixteen};
  }
  static BITHEADS_INLINE F32 add(const F32 &x, const F32 &y) {
    return {add16(x.a, y.a), add16(x.b, y.b), add16(x.c, y.c), add16(x.d, y.d)};
  }
  static BITHEADS_INLINE F32 mul(const F32 &x, const F32 &y) {
    return {mul16(x.a, y.a), mul16(x.b, y.b), mul16(x.c, y.c), mul16(x.d, y.d)};
  }
  static BITHEADS_INLINE F32 div(const F32 &x, const F32 &y) {
    return {div16(x.a, y.a), div16(x.b, y.b), div16(x.c, y.c), div16(x.d, y.d)};
  }

  static BITHEADS_INLINE uint64_t greater(const F32 &x, const F32 &y) {
    return together(greater16(x.a, y.a), greater16(x.b, y.b), greater16(x.c, y.c),
                    greater16(x.d, y.d));
  }

  static BITHEADS_INLINE uint64_t equal(const F32 &x, const F32 &y) {
    return together(equal16(x.a, y.a), equal16(x.b, y.b), equal16(x.c, y.c), equal16(x.d, y.d));
  }

  static BITHEADS_INLINE F32 add_one_if_greater(const F32 &count, const F32 &x, const F32 &y) {
    return {add_one_if_greater16(count.a, x.a, y.a), add_one_if_greater16(count.b, x.b, y.b),
            add_one_if_greater16(count.c, x.c, y.c), add_one_if_greater16(count.d, x.d, y.d)};
  }

  static BITHEADS_INLINE void store_uint8(uint8_t *out, const F32 &x) {
    store_uint8_16(out, x.a);
    store_uint8_16(out + 16, x.b);
    store_uint8_16(out + 32, x.c);
    store_uint8_16(out + 48, x.d);
  }

  static BITHEADS_INLINE void store_half(uint8_t *out, const F32 &x) {
    store_half16(out, x.a);
    store_half16(out + 32, x.b);
    store_half16(out + 64, x.c);
    store_half16(out + 96, x.d);
  }
};

}  // namespace

namespace bitheads {

void pool_and_pack_neon(const bh_pool_and_pack_args &args) noexcept {
  run_pool_and_pack<F32x64>(args);
}

}  // namespace bitheads
