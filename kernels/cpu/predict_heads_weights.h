// predict_heads: scores of all columns of a group, and the softmax weights that they become.
#ifndef BITHEADS_CPU_PREDICT_HEADS_WEIGHTS_H
#define BITHEADS_CPU_PREDICT_HEADS_WEIGHTS_H

#include <string.h>

#include "predict_heads_block.h"
#include "predict_heads_functions.h"
#include "predict_heads_product.h"

namespace {

using bitheads::HeadView;
using bitheads::kWideTokens;

// By how many bits a pooled code is shifted: b of SPEC.md, k aside.
template <bool is_sign>
constexpr int kShift = is_sign ? 2 : 9;
// The sum of a text's weights, at most.
template <bool is_sign>
constexpr int32_t kTotal = is_sign ? 65534 : 32767;
// How much larger the sum may be where no weight is large: 2^k of SPEC.md, at most.
template <bool is_sign>
constexpr float kMaxGain = is_sign ? 1.0f : 256.0f;

// Copies the queries of heads first_head to end - 1 side by side.
inline void stack_queries(const Block &block, int64_t first_head, int64_t end) {
  int16_t *panels = block.at<int16_t>(block.plan.queries);
  float *steps = block.at<float>(block.plan.log2_step);
  const int64_t panel_stride = block.plan.padded_dim * kPanel;
  memset(panels, 0, static_cast<size_t>(block.columns * block.plan.padded_dim * 2));
  memset(steps, 0, static_cast<size_t>(block.columns * 4));
  int64_t column = 0;
  for (int64_t head = first_head; head < end; ++head) {
    const HeadView view = bitheads::view_head(block.args.heads[head]);
    for (int64_t c = 0; view.query != nullptr && c < view.columns;) {
      // As many columns as are together in both.
      const int64_t lane = (column + c) % kPanel;
      const int64_t count = smaller(kPanel - lane, view.columns - c);
      const int16_t *from = view.query + 2 * c;
      int16_t *to = panels + (column + c) / kPanel * panel_stride + 2 * lane;
      for (int64_t pair = 0; pair < block.plan.padded_dim / 2; ++pair) {
        memcpy(to + pair * 2 * kPanel, from + pair * 2 * view.columns,
               static_cast<size_t>(count * 4));
      }
      memcpy(steps + column + c, view.log2_step + c, static_cast<size_t>(count * 4));
      c += count;
    }
    column += view.columns;
  }
}

template <class V, bool is_sign>
inline void widen(const Block &block, const uint8_t *row, int16_t *out) {
  for (int64_t feature = 0; feature < block.plan.padded_dim; feature += V::kWords) {
    if (is_sign) {
      V::widen_bits(row + feature / 8, out + feature);
    } else {
      V::widen_bytes(row + feature, out + feature);
    }
  }
}

// int32 [tokens, columns] of one text.
template <class V, bool is_sign>
inline void score(const Block &block, int64_t text) {
  const int64_t tokens = block.tokens_of(text);
  const uint8_t *rows = block.rows_of(text);
  int16_t *wide = block.at<int16_t>(block.plan.wide);
  for (int64_t first = 0; first < tokens; first += kWideTokens) {
    const int64_t count = smaller(kWideTokens, tokens - first);
    for (int64_t token = 0; token < count; ++token) {
      widen<V, is_sign>(block, rows + (first + token) * block.plan.row_bytes,
                        wide + token * block.plan.row_stride);
    }
    for (int64_t column = 0; column < block.columns; column += V::kPanels * kPanel) {
      const int64_t panels = smaller(V::kPanels, (block.columns - column) / kPanel);
      multiply<V>(count, panels,
                  {wide, block.plan.row_stride,
                   block.at<int16_t>(block.plan.queries) + column * block.plan.padded_dim,
                   block.plan.padded_dim * kPanel, block.plan.padded_dim / 2,
                   block.at<int32_t>(block.plan.scores) + first * block.columns + column,
                   block.columns, Sums::kStoreInt, nullptr});
    }
  }
}

// A column's weights, 16 apart: a panel of columns is together, [tokens, 16]. Half the rows are
// enough for uint8; each text has room for all.
inline uint32_t *weights_of(const Block &block, int64_t text, int64_t column) {
  return block.at<uint32_t>(block.plan.weights) + block.token_offset(text) * block.columns +
         column / kPanel * kPanel * block.tokens_of(text) + column % kPanel;
}

template <class V>
inline typename V::I32 weight_at(const Block &block, const int32_t *scores, int64_t t,
                                 typename V::F32 scale) {
  const float *e = reinterpret_cast<const float *>(scores + t * block.columns);
  return V::round(V::mul(V::load_float(e), scale));
}

template <class V, bool is_sign>
inline void store_scales(const Block &block, int64_t text, int64_t column, typename V::I32 sum,
                         typename V::I32 shift) {
  const int64_t where = text * block.columns + column;
  const typename V::I32 half = V::template shift_right<1>(is_sign ? sum : V::times_255(sum));
  const typename V::F32 total = V::to_float(sum);
  const typename V::F32 unit = V::power_of_half(V::sub_int(V::zero(), shift));
  // What the shift drops, on average.
  const typename V::F32 dropped =
      V::mul(V::sub(unit, V::broadcast_float(1.0f)), V::broadcast_float(0.5f));
  V::store(block.at<int32_t>(block.plan.half) + where, half);
  V::store(block.at<int32_t>(block.plan.shift) + where, shift);
  V::store_float(block.at<float>(block.plan.alpha) + where, V::div(unit, total));
  V::store_float(block.at<float>(block.plan.beta) + where,
                 V::div(V::add(V::to_float(half), dropped), total));
}

// Scores become weights: for signs, pairs of the same one; for uint8, those of two tokens.
template <class V, bool is_sign>
inline void weigh(const Block &block, int64_t text) {
  const int64_t tokens = block.tokens_of(text);
  for (int64_t column = 0; column < block.columns; column += V::kLanes) {
    int32_t *scores = block.at<int32_t>(block.plan.scores) + column;
    typename V::I32 most = V::load(scores);
    for (int64_t t = 1; t < tokens; ++t) most = V::max(most, V::load(scores + t * block.columns));
    const typename V::F32 step = V::load_float(block.at<float>(block.plan.log2_step) + column);
    typename V::F32 total = V::broadcast_float(-0.0f);
    for (int64_t t = 0; t < tokens; ++t) {
      int32_t *score = scores + t * block.columns;
      const typename V::F32 distance = V::to_float(V::sub_int(most, V::load(score)));
      const typename V::F32 e = exp2_minus<V>(V::mul(distance, step));
      total = V::add(total, e);
      V::store_float(reinterpret_cast<float *>(score), e);
    }
    // The power of two by which the total may be larger: the largest weight is total / E.
    const typename V::I32 gain = V::exponent(V::min(total, V::broadcast_float(kMaxGain<is_sign>)));
    const typename V::F32 all = V::mul(V::broadcast_float(static_cast<float>(kTotal<is_sign>)),
                                       V::power_of_half(V::sub_int(V::zero(), gain)));
    const typename V::F32 scale =
        V::div(V::sub(all, V::broadcast_float(static_cast<float>(tokens))), total);
    uint32_t *weights = weights_of(block, text, column);
    typename V::I32 sum = V::zero();
    for (int64_t t = 0; t < tokens; t += is_sign ? 1 : 2) {
      const typename V::I32 first = weight_at<V>(block, scores, t, scale);
      typename V::I32 second = first;
      sum = V::add_int(sum, first);
      if (!is_sign) {
        second = t + 1 < tokens ? weight_at<V>(block, scores, t + 1, scale) : V::zero();
        sum = V::add_int(sum, second);
      }
      V::store(weights + (is_sign ? t : t / 2) * kPanel, V::pairs(first, second));
    }
    store_scales<V, is_sign>(block, text, column, sum,
                             V::add_int(gain, V::broadcast(kShift<is_sign>)));
  }
}

// What `weigh` would leave if all of the weight were one token's.
template <bool is_sign>
inline void weigh_one_token(const Block &block, int64_t text, int64_t column, int64_t token) {
  const int64_t tokens = block.tokens_of(text);
  const uint32_t weight = static_cast<uint32_t>(kTotal<is_sign> - tokens);
  uint32_t *weights = weights_of(block, text, column);
  const int64_t rows = is_sign ? tokens : (tokens + 1) / 2;
  for (int64_t t = 0; t < rows; ++t) weights[t * kPanel] = 0;
  if (is_sign) {
    weights[token * kPanel] = weight * 0x10001u;
  } else {
    weights[token / 2 * kPanel] = weight << (token % 2 * 16);
  }
  const int64_t where = text * block.columns + column;
  const int32_t h = static_cast<int32_t>(is_sign ? weight : 255 * weight) >> 1;
  constexpr float kUnit = 1 << kShift<is_sign>;
  block.at<int32_t>(block.plan.half)[where] = h;
  block.at<int32_t>(block.plan.shift)[where] = kShift<is_sign>;
  block.at<float>(block.plan.alpha)[where] = kUnit / static_cast<float>(weight);
  block.at<float>(block.plan.beta)[where] =
      (static_cast<float>(h) + (kUnit - 1) / 2) / static_cast<float>(weight);
}

}  // namespace

#endif
