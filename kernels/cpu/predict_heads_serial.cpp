// predict_heads in portable C++: what the SIMD levels must agree with, and what runs where there
// are none. The "vectors" are arrays whose loops a compiler can vectorize for its baseline.
#include <math.h>

#include "dispatch.h"
#include "predict_heads_loop.h"

namespace {

struct Serial {
  static constexpr int kLanes = 16;
  static constexpr int kRows = 4;
  static constexpr int kPanels = 1;
  static constexpr int kWords = 16;
  static constexpr int kByteVectors = 1;
  static constexpr int kLookupTokens = 3;
  static constexpr int kLookups = 5;
  static constexpr int kTable = 8;
  static constexpr bool kOwnSums = false;
  static constexpr bool kOwnScores = false;

  // Sums may pass through values outside int32 on their way: they wrap, as unsigned ones do.
  struct I32 {
    uint32_t lane[kLanes];
  };
  struct F32 {
    float lane[kLanes];
  };
  struct Words {
    uint16_t lane[kWords];
  };
  struct Table {
    uint16_t entry[kTable];
  };

  static I32 zero() { return {}; }
  static I32 broadcast(int32_t x) {
    return map<I32>([&](int) { return static_cast<uint32_t>(x); });
  }
  static I32 broadcast_at(const void *at) {
    int32_t bits;
    memcpy(&bits, at, sizeof bits);
    return broadcast(bits);
  }
  static I32 load(const void *at) {
    I32 x;
    memcpy(&x, at, sizeof x);
    return x;
  }
  static void store(void *at, const I32 &x) { memcpy(at, &x, sizeof x); }
  static I32 dot(const I32 &sum, const I32 &a, const I32 &b) {
    return map<I32>([&](int i) {
      const int32_t low = low_half(a.lane[i]) * low_half(b.lane[i]);
      const int32_t high = low_half(a.lane[i] >> 16) * low_half(b.lane[i] >> 16);
      return sum.lane[i] + static_cast<uint32_t>(low) + static_cast<uint32_t>(high);
    });
  }
  static I32 add_int(const I32 &a, const I32 &b) {
    return map<I32>([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static I32 sub_int(const I32 &a, const I32 &b) {
    return map<I32>([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static I32 max(const I32 &a, const I32 &b) {
    return map<I32>([&](int i) {
      return static_cast<int32_t>(a.lane[i]) > static_cast<int32_t>(b.lane[i]) ? a.lane[i]
                                                                               : b.lane[i];
    });
  }
  template <int bits>
  static I32 shift_right(const I32 &x) {
    return shift_right_by(x, bits);
  }
  static I32 shift_right_by(const I32 &x, int32_t bits) {
    return map<I32>(
        [&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(x.lane[i]) >> bits); });
  }
  // floor(log2 x), for normal positive numbers.
  static I32 exponent(const F32 &x) {
    return map<I32>([&](int i) { return static_cast<uint32_t>((bits_of(x.lane[i]) >> 23) - 127); });
  }
  static I32 times_255(const I32 &x) {
    return map<I32>([&](int i) { return 255 * x.lane[i]; });
  }
  static I32 pairs(const I32 &low, const I32 &high) {
    return map<I32>([&](int i) { return low.lane[i] | high.lane[i] << 16; });
  }
  static F32 to_float(const I32 &x) {
    return map<F32>([&](int i) { return static_cast<float>(static_cast<int32_t>(x.lane[i])); });
  }
  static I32 round(const F32 &x) {
    // Half to even: what is added leaves no bits for a fraction. |x| < 2^22.
    constexpr float kNoFraction = 12582912.0f;  // 1.5 * 2^23
    return map<I32>([&](int i) {
      return static_cast<uint32_t>(static_cast<int32_t>((x.lane[i] + kNoFraction) - kNoFraction));
    });
  }
  static I32 byte_pairs(const uint8_t *bytes) {
    return map<I32>(
        [&](int i) { return bytes[2 * i] | static_cast<uint32_t>(bytes[2 * i + 1]) << 16; });
  }
  static void store_byte_pairs(const uint8_t *low, const uint8_t *high, uint8_t *out) {
    for (int i = 0; i < kWords; ++i) {
      out[2 * i] = low[i];
      out[2 * i + 1] = high[i];
    }
  }
  static void store_int16(int16_t *out, const I32 &x) {
    for (int i = 0; i < kLanes; ++i) out[i] = static_cast<int16_t>(x.lane[i]);
  }

  static F32 broadcast_float(float x) {
    return map<F32>([&](int) { return x; });
  }
  static F32 load_float(const float *at) {
    F32 x;
    memcpy(&x, at, sizeof x);
    return x;
  }
  static void store_float(float *at, const F32 &x) { memcpy(at, &x, sizeof x); }
  static F32 add(const F32 &a, const F32 &b) {
    return map<F32>([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static F32 sub(const F32 &a, const F32 &b) {
    return map<F32>([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static F32 mul(const F32 &a, const F32 &b) {
    return map<F32>([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static F32 div(const F32 &a, const F32 &b) {
    return map<F32>([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static F32 min(const F32 &a, const F32 &b) {
    return map<F32>([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static F32 max_float(const F32 &a, const F32 &b) {
    return map<F32>([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static F32 power_of_half(const I32 &k) {
    return map<F32>([&](int i) { return power_of_two(-static_cast<int32_t>(k.lane[i])); });
  }
  static F32 magnitude(const F32 &x) {
    return map<F32>([&](int i) { return fabsf(x.lane[i]); });
  }
  static F32 with_sign_of(const F32 &x, const F32 &sign) {
    return map<F32>([&](int i) { return copysignf(x.lane[i], sign.lane[i]); });
  }

  static Words no_words() { return {}; }
  static Words load_words(const uint16_t *at) {
    Words x;
    memcpy(&x, at, sizeof x);
    return x;
  }
  static void store_words(uint16_t *at, const Words &x) { memcpy(at, &x, sizeof x); }
  static Words add_words(const Words &a, const Words &b) {
    return map<Words>([&](int i) { return word(a.lane[i] + b.lane[i]); });
  }
  static Words set_bits(const Words &words, const uint8_t *bits, int bit) {
    return map<Words>([&](int i) { return word(words.lane[i] | bit_of(bits, i) << bit); });
  }
  static void widen_bits(const uint8_t *bits, int16_t *out) {
    for (int i = 0; i < kWords; ++i) out[i] = static_cast<int16_t>(bit_of(bits, i));
  }
  static void widen_bytes(const uint8_t *bytes, int16_t *out) {
    for (int i = 0; i < kWords; ++i) out[i] = static_cast<int16_t>(bytes[i] - 128);
  }
  // (sum - half) / 4, rounded down.
  static void store_quarter(int16_t *out, const Words &sum, int32_t half) {
    for (int i = 0; i < kWords; ++i) out[i] = static_cast<int16_t>((sum.lane[i] - half) >> 2);
  }

  static Table no_table() { return {}; }
  static Table load_table(const uint16_t *at) {
    Table x;
    memcpy(&x, at, sizeof x);
    return x;
  }
  static void store_table(uint16_t *at, const Table &x) { memcpy(at, &x, sizeof x); }
  static Table add_weight(Table table, int token, const uint32_t *weight) {
    for (int i = 0; i < kTable; ++i) {
      if (i >> token & 1) table.entry[i] = word(table.entry[i] + (*weight & 0xFFFF));
    }
    return table;
  }
  static Words index(const Words &bits) {
    return map<Words>([&](int i) { return word(bits.lane[i] % kTable); });
  }
  static Words look_up(const Table &table, const Words &index) {
    return map<Words>([&](int i) { return table.entry[index.lane[i]]; });
  }
  static Words next(const Words &bits) {
    return map<Words>([&](int i) { return word(bits.lane[i] >> kLookupTokens); });
  }

  static void keep(I32 &x) { __asm__ volatile("" : "+m"(x)); }

 private:
  template <class Vector, class Function>
  static Vector map(const Function &function) {
    Vector x;
    for (int i = 0; i < kLanes; ++i) x.lane[i] = function(i);
    return x;
  }
  static int32_t low_half(uint32_t x) { return static_cast<int16_t>(x & 0xFFFF); }
  template <class Int>
  static uint16_t word(Int x) {
    return static_cast<uint16_t>(x);
  }
  static int bit_of(const uint8_t *bits, int i) { return bits[i / 8] >> i % 8 & 1; }
};

}  // namespace

namespace bitheads {

void predict_heads_serial(const PredictHeadsCall &call) noexcept {
  run_predict_heads<Serial>(call);
}

int64_t run_dot_products_serial(int64_t multiply_adds) noexcept {
  return run_dots<Serial>(multiply_adds);
}

}  // namespace bitheads
