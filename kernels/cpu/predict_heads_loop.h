// predict_heads once, over small vector types V that each level defines. What is computed, to the
// bit, is in kernels/SPEC.md; how a call is cut is in predict_heads_plan.h.
//
//   V::I32, V::F32                   kLanes int32, which wrap, or floats: 4, 8 or 16
//   V::Words                         kWords uint16, one per feature: 8, 16 or 32
//   V::Table                         kTable uint16: the sum of the weights of each subset of
//                                    kLookupTokens tokens
//   V::kRows, kPanels                rows by panels of 16 columns that a tile keeps in registers
//   V::kByteVectors                  vectors of features that uint8 pooling keeps in registers
//   V::kLookups                      lookups per word of 15 tokens
//
//   V::zero(), broadcast(n), broadcast_at(address), load(address), store(address, x)
//   V::dot(sum, a, b)                sum + the products of a's and b's pairs of int16
//   V::kOwnSums                      whether it has loops over products of its own, which need no
//                                    dot: sum_products(tile, sums), sum_byte_pairs(pairs, weights,
//                                    num_pairs, sums); byte_pairs are then its own affair, too
//   V::kOwnScores                    whether it scores a text itself, score<is_sign>(block, text),
//                                    after arrange_queries(block)
//   V::add_int, sub_int, max, shift_right<bits>(x), shift_right_by(x, bits)
//   V::times_255(x)
//   V::pairs(low, high)              int32s as pairs of int16
//   V::byte_pairs(bytes)             2 * kLanes bytes as pairs of int16
//   V::store_byte_pairs(low, high, out)   kWords pairs of a byte of each
//   V::store_int16(out, x)           kLanes numbers that fit
//   V::to_float(n), round(x)         half to even
//   V::exponent(x)                   floor(log2 x), for normal positive numbers
//   V::power_of_half(n)              2^-n
//
//   V::broadcast_float(x), load_float, store_float, add, sub, mul, div, min, max_float
//   V::magnitude(x), with_sign_of(x, sign)
//
//   V::no_words(), load_words, store_words, add_words
//   V::set_bits(words, bits, token)  the bits of kWords features go to bit `token` of their words
//   V::widen_bits(bits, out)         kWords bits as int16: 0 or 1
//   V::widen_bytes(bytes, out)       kWords bytes less 128, as int16
//   V::store_quarter(out, sum, half) (sum - half) / 4, rounded down, as int16
//
//   V::no_table(), load_table, store_table
//   V::add_weight(table, token, weight)   adds it to the subsets that have the token; it lies at
//                                    `weight` twice, as two uint16
//   V::index(words)                  the lowest kLookupTokens bits, as look_up takes them
//   V::look_up(table, index)         one entry per word
//   V::next(words)                   the bits of the next kLookupTokens tokens become the lowest
//
//   V::keep(x)                       makes the compiler compute x, in one register
//
// Files by subject, which this one puts together: predict_heads_block.h (texts and their codes),
// predict_heads_product.h, predict_heads_functions.h, predict_heads_weights.h (scores and softmax),
// predict_heads_pooling.h.
//
// As in pool_and_pack_loop.h, everything in them has internal linkage and nothing calls an inline
// function of another header.
#ifndef BITHEADS_CPU_PREDICT_HEADS_LOOP_H
#define BITHEADS_CPU_PREDICT_HEADS_LOOP_H

#include <string.h>

#include "predict_heads_block.h"
#include "predict_heads_functions.h"
#include "predict_heads_pooling.h"
#include "predict_heads_product.h"
#include "predict_heads_weights.h"

namespace {

// An attention head's values of all texts; the next one overwrites its padding.
template <class V>
inline void project(const Block &block, const HeadView &view, int64_t column, int64_t head,
                    int64_t offset, int64_t stride) {
  const int64_t rows = block.args.dim / view.columns;
  const int64_t value_stride = block.plan.padded_dim + kPanel;
  const float *alpha = block.at<float>(block.plan.alpha) + column + head;
  const float *beta = block.at<float>(block.plan.beta) + column + head;
  const int64_t lane = head * view.value.panels * kPanel;
  float *values = block.at<float>(block.plan.values) + head * rows;
  product<V>(block.at<int16_t>(block.plan.pooled) + offset, stride, block.texts, view.value, head,
             block.at<float>(block.plan.sums), [&](int64_t row, int64_t panel, const float *sum) {
               for (int i = 0; i < kPanel; i += V::kLanes) {
                 const int64_t where = row * block.columns;
                 V::store_float(values + row * value_stride + panel * kPanel + i,
                                affine<V>(V::load_float(sum + i), alpha[where], beta[where],
                                          view.value, lane + panel * kPanel + i));
               }
             });
}

// Values to integers under a power of two of the text.
template <class V>
inline void fix_values(const Block &block, int64_t text) {
  float *values = block.at<float>(block.plan.values) + text * (block.plan.padded_dim + kPanel);
  int16_t *fixed = block.at<int16_t>(block.plan.fixed) + text * block.plan.row_stride;
  for (int64_t i = block.args.dim; i < block.plan.padded_dim; ++i) values[i] = 0;
  typename V::F32 most = V::broadcast_float(0.0f);
  for (int64_t i = 0; i < block.plan.padded_dim; i += V::kLanes) {
    most = V::max_float(most, V::magnitude(V::load_float(values + i)));
  }
  float lanes[V::kLanes];
  V::store_float(lanes, most);
  float largest = 0;
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  int32_t exponent = 0;
  if (largest > 0) exponent = 12 - ((bits_of(largest) >> 23) - 127);
  if (exponent > 100) exponent = 100;
  const typename V::F32 scale = V::broadcast_float(power_of_two(exponent));
  for (int64_t i = 0; i < block.plan.padded_dim; i += V::kLanes) {
    V::store_int16(fixed + i, V::round(V::mul(V::load_float(values + i), scale)));
  }
  block.at<float>(block.plan.row_alpha)[text] = power_of_two(-exponent);
  block.at<float>(block.plan.row_beta)[text] = 0;
}

// The logits of one head for all texts of the block; its columns begin at `column` of the group.
template <class V, bool is_sign>
inline void predict_head(const Block &block, int64_t head, const HeadView &view, int64_t column) {
  const int16_t *inputs = block.at<int16_t>(block.plan.pooled);
  const int64_t input_stride = block.plan.row_stride;
  float *alpha = block.at<float>(block.plan.row_alpha);
  float *beta = block.at<float>(block.plan.row_beta);
  if (view.position_pooling == BH_ATTENTION) {
    for (int64_t first = 0; first < view.columns; first += block.plan.pass_columns) {
      const int64_t count = smaller(block.plan.pass_columns, view.columns - first);
      pool<V, is_sign>(block, column + first, count);
      for (int64_t i = 0; i < count; ++i) {
        project<V>(block, view, column, first + i, i * block.plan.row_stride,
                   count * block.plan.row_stride);
      }
    }
    for (int64_t text = 0; text < block.texts; ++text) fix_values<V>(block, text);
    inputs = block.at<int16_t>(block.plan.fixed);
  } else {
    if (view.position_pooling != BH_MEAN) {
      for (int64_t text = 0; text < block.texts; ++text) {
        const int64_t token = view.position_pooling == BH_CLS ? 0 : block.tokens_of(text) - 1;
        weigh_one_token<is_sign>(block, text, column, token);
      }
    }
    pool<V, is_sign>(block, column, 1);
    for (int64_t text = 0; text < block.texts; ++text) {
      alpha[text] = block.at<float>(block.plan.alpha)[text * block.columns + column];
      beta[text] = block.at<float>(block.plan.beta)[text * block.columns + column];
    }
  }
  const int64_t inner = round_up_to(view.inner, kDepthMultiple) + bitheads::kRowPadding;
  int16_t *hidden = block.at<int16_t>(block.plan.hidden);
  if (view.output.padded_depth > view.dense.panels * kPanel) {
    for (int64_t text = 0; text < block.texts; ++text) {
      memset(hidden + text * inner + view.dense.panels * kPanel, 0, kPanel * 2);
    }
  }
  float *sums = block.at<float>(block.plan.sums);
  product<V>(inputs, input_stride, block.texts, view.dense, 0, sums,
             [&](int64_t row, int64_t panel, const float *sum) {
               for (int i = 0; i < kPanel; i += V::kLanes) {
                 const typename V::F32 y = affine<V>(V::load_float(sum + i), alpha[row], beta[row],
                                                     view.dense, panel * kPanel + i);
                 const typename V::F32 fixed = V::mul(tanh_of<V>(y), V::broadcast_float(8192.0f));
                 V::store_int16(hidden + row * inner + panel * kPanel + i, V::round(fixed));
               }
             });
  float *logits = block.args.logits[head] + block.first_text * view.classes;
  product<V>(hidden, inner, block.texts, view.output, 0, sums,
             [&](int64_t row, int64_t panel, const float *sum) {
               float answer[kPanel];
               for (int i = 0; i < kPanel; i += V::kLanes) {
                 V::store_float(answer + i, affine<V>(V::load_float(sum + i), 0x1p-13f, 0.0f,
                                                      view.output, panel * kPanel + i));
               }
               const int64_t count = smaller(kPanel, view.classes - panel * kPanel);
               memcpy(logits + row * view.classes + panel * kPanel, answer,
                      static_cast<size_t>(count * 4));
             });
}

// As many heads as are scored together, from first_head on; returns the first one after them.
template <class V, bool is_sign>
inline int64_t predict_group(Block &block, int64_t first_head) {
  int64_t columns = 0;
  int64_t end = first_head;
  while (end < block.args.num_heads) {
    const int64_t more = bitheads::view_head(block.args.heads[end]).columns;
    if (columns + more > block.plan.group_columns) break;
    columns += more;
    ++end;
  }
  block.columns = round_up_to(columns, kPanelRows);
  stack_queries(block, first_head, end);
  if constexpr (V::kOwnScores) V::arrange_queries(block);
  for (int64_t text = 0; text < block.texts; ++text) {
    if constexpr (V::kOwnScores) {
      V::template score<is_sign>(block, text);
    } else {
      score<V, is_sign>(block, text);
    }
    weigh<V, is_sign>(block, text);
  }
  int64_t column = 0;
  for (int64_t head = first_head; head < end; ++head) {
    const HeadView view = bitheads::view_head(block.args.heads[head]);
    predict_head<V, is_sign>(block, head, view, column);
    column += view.columns;
  }
  return end;
}

template <class V, bool is_sign>
inline void predict_all(const PredictHeadsCall &call) {
  Block block(call);
  for (; block.first_text < block.args.texts; block.first_text += block.texts) {
    block.texts = block.count_texts();
    unpack_block<V, is_sign>(block);
    for (int64_t head = 0; head < block.args.num_heads;) {
      head = predict_group<V, is_sign>(block, head);
    }
  }
}

template <class V>
void run_predict_heads(const PredictHeadsCall &call) {
  if (call.args.quantization == BH_SIGN) {
    predict_all<V, true>(call);
  } else {
    predict_all<V, false>(call);
  }
}

// What bh_run_dot_products runs: as many independent sums as hide the latency, from registers.
template <class V>
int64_t run_dots(int64_t multiply_adds) {
  constexpr int kSums = 12;
  typename V::I32 sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = V::broadcast(i);
  typename V::I32 a = V::broadcast(3);
  const typename V::I32 b = V::broadcast(5);
  const int64_t rounds = multiply_adds / (kSums * 2 * V::kLanes) + 1;
  for (int64_t round = 0; round < rounds; ++round) {
    V::keep(a);  // or the compiler would multiply only once
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = V::dot(sum[i], a, b);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kSums; ++i) sum[0] = V::add_int(sum[0], sum[i]);
  V::keep(sum[0]);
  return rounds * kSums * 2 * V::kLanes;
}

}  // namespace

#endif
