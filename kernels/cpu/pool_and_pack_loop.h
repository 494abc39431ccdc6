// The row, token, feature and layer loops of pool_and_pack, once, over a small vector type V that
// each level defines:
//
//   V::kLanes                        floats in a V::F32: 8, 16, 32 or 64
//   V::load<dtype>(bytes)            kLanes features from an unaligned address, as fp32
//   V::broadcast(x), add, mul, div
//   V::greater(a, b)                 uint64_t, bit i = a[i] > b[i], false for NaN
//   V::equal(a, b)
//   V::add_one_if_greater(n, a, b)   n[i] + (a[i] > b[i] ? 1 : 0)
//   V::store_uint8(out, x)           clamp(round-half-to-even(x), 0, 255), NaN to 0
//   V::store_half(out, x)
//
// Each level's translation unit includes this file under its own compiler flags. Everything here
// has internal linkage, and nothing here calls an inline function of another header, so that no
// function compiled for AVX-512 can be picked by the linker for a machine without it.
#ifndef BITHEADS_CPU_POOL_AND_PACK_LOOP_H
#define BITHEADS_CPU_POOL_AND_PACK_LOOP_H

#include <string.h>

#include "bitheads/kernels.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels read and write little-endian numbers: port the loads and stores first"
#endif

namespace {

enum class Mode { kSign, kVote, kUint8, kHalf };

// Lane i is bit i of a comparison, but feature i belongs in bit 7 - i % 8 of its byte.
inline uint64_t reverse_bits_in_bytes(uint64_t bits) {
  bits = (bits >> 4 & 0x0F0F0F0F0F0F0F0Fu) | (bits & 0x0F0F0F0F0F0F0F0Fu) << 4;
  bits = (bits >> 2 & 0x3333333333333333u) | (bits & 0x3333333333333333u) << 2;
  return (bits >> 1 & 0x5555555555555555u) | (bits & 0x5555555555555555u) << 1;
}

template <class V, bh_dtype dtype, Mode mode, bool weighted>
class PoolAndPack {
  using F32 = typename V::F32;
  static constexpr int64_t kElementBytes = dtype == BH_FLOAT32 ? 4 : 2;
  // Features summed side by side in registers: the bits of a block fill one 64-bit word, and a
  // layer's share of it is a whole number of cache lines.
  static constexpr int kBlock = 64;

 public:
  explicit PoolAndPack(const bh_pool_and_pack_args &args)
      : args_(args), divisor_(weighted ? 1.0f : static_cast<float>(args.num_layers)) {}

  void run() const {
    const int64_t code_bytes = bh_code_bytes(args_.dim, args_.quantization);
    for (int64_t row = 0; row < args_.rows; ++row) {
      uint8_t *code = args_.codes + args_.token_offsets[row] * code_bytes;
      for (int64_t token = 0; token < args_.lengths[row]; ++token, code += code_bytes) {
        pack_token(row, token, code);
      }
    }
  }

 private:
  void pack_token(int64_t row, int64_t token, uint8_t *code) const {
    int64_t feature = 0;
    for (; feature + kBlock <= args_.dim; feature += kBlock) {
      pack_block<kBlock / V::kLanes, false>(row, token, feature, V::kLanes, code);
    }
    for (; feature + V::kLanes <= args_.dim; feature += V::kLanes) {
      pack_block<1, false>(row, token, feature, V::kLanes, code);
    }
    if (feature < args_.dim) {
      pack_block<1, true>(row, token, feature, static_cast<int>(args_.dim - feature), code);
    }
  }

  // Features [feature, feature + num_vectors * kLanes) of one token, or with `partial` the last
  // `count` < kLanes ones.
  template <int num_vectors, bool partial>
  void pack_block(int64_t row, int64_t token, int64_t feature, int count, uint8_t *code) const {
    F32 sum[num_vectors];
    F32 votes[num_vectors];
    F32 threshold[num_vectors];
    for (int v = 0; v < num_vectors; ++v) {
      sum[v] = V::broadcast(-0.0f);  // adds to any first layer without changing it, +0 would not
      votes[v] = V::broadcast(0.0f);
      threshold[v] = mode == Mode::kSign || mode == Mode::kVote
                         ? parameter<partial>(args_.thresholds, feature + v * V::kLanes, count)
                         : V::broadcast(0.0f);
    }
    for (int64_t i = 0; i < args_.num_layers; ++i) {
      const bh_layer &layer = args_.layers[i];
      const uint8_t *features = static_cast<const uint8_t *>(layer.data) +
                                row * layer.row_stride_bytes + token * layer.token_stride_bytes +
                                feature * kElementBytes;
      for (int v = 0; v < num_vectors; ++v) {
        F32 x = load<dtype, partial>(features + v * V::kLanes * kElementBytes, count);
        if (mode == Mode::kVote) votes[v] = V::add_one_if_greater(votes[v], x, threshold[v]);
        if (weighted) x = V::mul(V::broadcast(args_.layer_weights[i]), x);
        sum[v] = V::add(sum[v], x);
      }
    }
    if (mode == Mode::kSign || mode == Mode::kVote) {
      store_bits<num_vectors, partial>(sum, votes, threshold, count, code + feature / 8);
    } else {
      store_numbers<num_vectors, partial>(sum, feature, count, code);
    }
  }

  template <int num_vectors, bool partial>
  void store_bits(const F32 *sum, const F32 *votes, const F32 *threshold, int count,
                  uint8_t *out) const {
    const F32 divisor = V::broadcast(divisor_);
    const F32 half = V::broadcast(static_cast<float>(args_.num_layers) * 0.5f);
    uint64_t bits = 0;
    for (int v = 0; v < num_vectors; ++v) {
      uint64_t positive = V::greater(sum[v], V::mul(divisor, threshold[v]));
      if (mode == Mode::kVote) {
        positive = V::greater(votes[v], half) | (V::equal(votes[v], half) & positive);
      }
      bits |= positive << (v * V::kLanes);
    }
    if (partial) bits &= (uint64_t{1} << count) - 1;
    const int num_bits = partial ? count : num_vectors * V::kLanes;
    bits = reverse_bits_in_bytes(bits);
    memcpy(out, &bits, static_cast<size_t>(num_bits + 7) / 8);
  }

  template <int num_vectors, bool partial>
  void store_numbers(const F32 *sum, int64_t feature, int count, uint8_t *code) const {
    constexpr int64_t kCodeBytes = mode == Mode::kHalf ? 2 : 1;
    for (int v = 0; v < num_vectors; ++v) {
      const int64_t first = feature + v * V::kLanes;
      uint8_t lanes[2 * V::kLanes];
      uint8_t *out = partial ? lanes : code + first * kCodeBytes;
      const F32 mean = V::div(sum[v], V::broadcast(divisor_));
      if (mode == Mode::kHalf) {
        V::store_half(out, mean);
      } else {
        const F32 scaled = V::mul(mean, parameter<partial>(args_.inverse_scale, first, count));
        V::store_uint8(out, V::add(scaled, parameter<partial>(args_.zero_point, first, count)));
      }
      if (partial) {
        memcpy(code + first * kCodeBytes, lanes, static_cast<size_t>(count * kCodeBytes));
      }
    }
  }

  // Per-feature parameters [feature, ...) of the caller; null stands for zeros.
  template <bool partial>
  static F32 parameter(const float *values, int64_t feature, int count) {
    if (values == nullptr) return V::broadcast(0.0f);
    return load<BH_FLOAT32, partial>(reinterpret_cast<const uint8_t *>(values + feature), count);
  }

  // A token's last bytes may be the last of a mapping: partial vectors go through the stack.
  template <bh_dtype type, bool partial>
  static F32 load(const uint8_t *bytes, int count) {
    if (!partial) return V::template load<type>(bytes);
    uint8_t lanes[V::kLanes * sizeof(float)] = {};
    memcpy(lanes, bytes, static_cast<size_t>(count) * (type == BH_FLOAT32 ? 4 : 2));
    return V::template load<type>(lanes);
  }

  const bh_pool_and_pack_args &args_;
  const float divisor_;
};

template <class V, bh_dtype dtype, Mode mode>
void run_mode(const bh_pool_and_pack_args &args) {
  if (mode != Mode::kVote && args.layer_weights != nullptr) {
    PoolAndPack<V, dtype, mode, mode != Mode::kVote>(args).run();
  } else {
    PoolAndPack<V, dtype, mode, false>(args).run();
  }
}

template <class V, bh_dtype dtype>
void run_dtype(const bh_pool_and_pack_args &args) {
  switch (args.quantization) {
    case BH_SIGN:
      if (args.order == BH_SIGN_THEN_VOTE) return run_mode<V, dtype, Mode::kVote>(args);
      return run_mode<V, dtype, Mode::kSign>(args);
    case BH_UINT8:
      return run_mode<V, dtype, Mode::kUint8>(args);
    case BH_HALF:
      return run_mode<V, dtype, Mode::kHalf>(args);
  }
}

template <class V>
void run_pool_and_pack(const bh_pool_and_pack_args &args) {
  switch (args.dtype) {
    case BH_FLOAT32:
      return run_dtype<V, BH_FLOAT32>(args);
    case BH_FLOAT16:
      return run_dtype<V, BH_FLOAT16>(args);
    case BH_BFLOAT16:
      return run_dtype<V, BH_BFLOAT16>(args);
  }
}

}  // namespace

#endif
