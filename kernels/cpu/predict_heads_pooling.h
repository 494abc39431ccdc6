// predict_heads: pooled codes, the sums of a text's codes by their weights. Those of signs are
// looked up, those of uint8 multiplied.
#ifndef BITHEADS_CPU_PREDICT_HEADS_POOLING_H
#define BITHEADS_CPU_PREDICT_HEADS_POOLING_H

#include "predict_heads_block.h"
#include "predict_heads_product.h"
#include "predict_heads_weights.h"

namespace {

template <class V>
inline typename V::Table sum_weights(const uint32_t *weights, int tokens) {
  typename V::Table table = V::no_table();
#pragma GCC unroll 5
  for (int t = 0; t < tokens; ++t) table = V::add_weight(table, t, weights + t * kPanel);
  return table;
}

// One table per kLookupTokens tokens: entry i is the sum of the weights of those whose bit is in i.
template <class V, int columns>
inline void make_tables(const Block &block, int64_t text, int64_t column) {
  const int64_t tokens = block.tokens_of(text);
  for (int c = 0; c < columns; ++c) {
    const uint32_t *weight = weights_of(block, text, column + c);
    uint16_t *table = block.at<uint16_t>(block.plan.tables) + c * V::kTable;
    int64_t left = tokens;
    for (; left >= V::kLookupTokens; left -= V::kLookupTokens) {
      V::store_table(table, sum_weights<V>(weight, V::kLookupTokens));
      table += columns * V::kTable;
      weight += V::kLookupTokens * kPanel;
    }
    if (left > 0) V::store_table(table, sum_weights<V>(weight, static_cast<int>(left)));
  }
}

// Pools some columns of `vectors` times kWords features: sums of table entries.
template <class V, int columns, int vectors>
inline void look_up(const Block &block, int64_t text, int64_t column, int64_t feature,
                    int16_t *out) {
  typename V::Words sum[columns][vectors];
#pragma GCC unroll 16
  for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) sum[c][v] = V::no_words();
  }
  const uint16_t *words = reinterpret_cast<uint16_t *>(transposed<true>(block, text)) + feature;
  const uint16_t *tables = block.at<uint16_t>(block.plan.tables);
  int64_t lookups = (block.tokens_of(text) + V::kLookupTokens - 1) / V::kLookupTokens;
  for (; lookups > 0; lookups -= V::kLookups, words += block.plan.padded_dim) {
    typename V::Words bits[vectors];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) bits[v] = V::load_words(words + v * V::kWords);
    for (int64_t i = smaller(lookups, V::kLookups); i > 0; --i) {
      typename V::Words index[vectors];
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) index[v] = V::index(bits[v]);
#pragma GCC unroll 16
      for (int c = 0; c < columns; ++c, tables += V::kTable) {
        const typename V::Table table = V::load_table(tables);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) {
          sum[c][v] = V::add_words(sum[c][v], V::look_up(table, index[v]));
        }
      }
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) bits[v] = V::next(bits[v]);
    }
  }
  const int32_t *half = block.at<int32_t>(block.plan.half) + text * block.columns + column;
#pragma GCC unroll 16
  for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      V::store_quarter(out + c * block.plan.row_stride + feature + v * V::kWords, sum[c][v],
                       half[c]);
    }
  }
}

template <class V, int columns>
inline void pool_bits_of(const Block &block, int64_t text, int64_t column, int64_t count,
                         int16_t *out) {
  if constexpr (columns > 1) {
    if (count < columns) return pool_bits_of<V, columns - 1>(block, text, column, count, out);
  }
  make_tables<V, columns>(block, text, column);
  constexpr int kWide = 4;
  int64_t feature = 0;
  for (; feature + kWide * V::kWords <= block.plan.padded_dim; feature += kWide * V::kWords) {
    look_up<V, columns, kWide>(block, text, column, feature, out);
  }
  for (; feature < block.plan.padded_dim; feature += V::kWords) {
    look_up<V, columns, 1>(block, text, column, feature, out);
  }
}

// The weights of some columns side by side, so that one pointer is enough: uint32 [pairs,
// columns].
template <int columns>
inline void gather_weights(const Block &block, int64_t text, int64_t column) {
  const int64_t num_pairs = (block.tokens_of(text) + 1) / 2;
  uint32_t *out = block.at<uint32_t>(block.plan.tables);
  for (int c = 0; c < columns; ++c) {
    const uint32_t *weights = weights_of(block, text, column + c);
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      out[pair * columns + c] = weights[pair * kPanel];
    }
  }
}

// Pools some columns of `vectors` times kLanes features: products of pairs of tokens. A function of
// its own: inside a larger one GCC 12 has too few registers left for the sums.
template <class V, int columns, int vectors>
__attribute__((noinline)) void pool_bytes(const Block &block, int64_t text, int64_t column,
                                          int64_t feature, int16_t *out) {
  typename V::I32 sum[columns][vectors];
#pragma GCC unroll 16
  for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) sum[c][v] = V::zero();
  }
  const int64_t num_pairs = (block.tokens_of(text) + 1) / 2;
  const uint8_t *pairs = transposed<false>(block, text) +
                         feature / kDepthMultiple * kDepthMultiple * 2 * num_pairs +
                         feature % kDepthMultiple * 2;
  const uint32_t *weights = block.at<uint32_t>(block.plan.tables);
  if constexpr (V::kOwnSums) {
    V::sum_byte_pairs(pairs, weights, num_pairs, sum);
  } else {
    for (int64_t pair = 0; pair < num_pairs; ++pair, pairs += 2 * kDepthMultiple) {
      typename V::I32 codes[vectors];
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) codes[v] = V::byte_pairs(pairs + 2 * v * V::kLanes);
#pragma GCC unroll 16
      for (int c = 0; c < columns; ++c) {
        const typename V::I32 weight = V::broadcast_at(weights + pair * columns + c);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) sum[c][v] = V::dot(sum[c][v], weight, codes[v]);
      }
    }
  }
  const int64_t where = text * block.columns + column;
  const int32_t *half = block.at<int32_t>(block.plan.half) + where;
  const int32_t *shift = block.at<int32_t>(block.plan.shift) + where;
#pragma GCC unroll 16
  for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      V::keep(sum[c][v]);  // in one register: GCC 12 would copy each sum in each round
      const typename V::I32 centered = V::sub_int(sum[c][v], V::broadcast(half[c]));
      V::store_int16(out + c * block.plan.row_stride + feature + v * V::kLanes,
                     V::shift_right_by(centered, shift[c]));
    }
  }
}

template <class V, int columns>
inline void pool_bytes_of(const Block &block, int64_t text, int64_t column, int64_t count,
                          int16_t *out) {
  if constexpr (columns > 1) {
    if (count < columns) return pool_bytes_of<V, columns - 1>(block, text, column, count, out);
  }
  gather_weights<columns>(block, text, column);
  constexpr int kVectors = V::kByteVectors;
  for (int64_t feature = 0; feature < block.plan.padded_dim; feature += kVectors * V::kLanes) {
    pool_bytes<V, columns, kVectors>(block, text, column, feature, out);
  }
}

// The pooled codes of `count` columns: int16 [texts, count, row_stride].
template <class V, bool is_sign>
inline void pool(const Block &block, int64_t column, int64_t count) {
  int16_t *out = block.at<int16_t>(block.plan.pooled);
  for (int64_t text = 0; text < block.texts; ++text, out += count * block.plan.row_stride) {
    if constexpr (is_sign) {
      pool_bits_of<V, bitheads::kSignColumns>(block, text, column, count, out);
    } else {
      pool_bytes_of<V, bitheads::kUint8Columns>(block, text, column, count, out);
    }
  }
}

}  // namespace

#endif
