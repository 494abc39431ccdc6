// predict_heads: a block of texts, and their codes as the products and lookups read them.
#ifndef BITHEADS_CPU_PREDICT_HEADS_BLOCK_H
#define BITHEADS_CPU_PREDICT_HEADS_BLOCK_H

#include <string.h>

#include "predict_heads_plan.h"

namespace {

using bitheads::kDepthMultiple;
using bitheads::kWordTokens;
using bitheads::PredictHeadsCall;
using bitheads::PredictHeadsPlan;

inline int64_t round_up_to(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// The texts of a call that are computed together, and the group of heads whose turn it is.
struct Block {
  explicit Block(const PredictHeadsCall &call)
      : args(call.args), plan(call.plan), base(static_cast<uint8_t *>(call.args.workspace)) {}

  // An array of the workspace, at one of the plan's offsets.
  template <class Item>
  Item *at(int64_t offset) const {
    return reinterpret_cast<Item *>(base + offset);
  }

  int64_t tokens_of(int64_t text) const {
    const int64_t *offsets = args.offsets + first_text + text;
    return offsets[1] - offsets[0];
  }

  // The text's first token, counted from the block's.
  int64_t token_offset(int64_t text) const {
    return args.offsets[first_text + text] - args.offsets[first_text];
  }

  const uint8_t *rows_of(int64_t text) const { return rows + token_offset(text) * plan.row_bytes; }

  // Texts of the block that begins at first_text.
  int64_t count_texts() const {
    const int64_t *first = args.offsets + first_text;
    // Blocks of nearly the same number of texts.
    const int64_t left = args.texts - first_text;
    const int64_t blocks = (left + plan.block_texts - 1) / plan.block_texts;
    const int64_t most = (left + blocks - 1) / blocks;
    int64_t count = 1;
    while (count < most && first[count + 1] - first[0] <= plan.block_tokens) ++count;
    return count;
  }

  const bh_predict_heads_args &args;
  const PredictHeadsPlan &plan;
  uint8_t *const base;
  const uint8_t *rows = nullptr;  // of the block, [tokens, row_bytes]
  int64_t first_text = 0;
  int64_t texts = 0;    // of the block
  int64_t columns = 0;  // of the group, a multiple of 16
};

// Bit 7 - j % 8 of a byte becomes bit j % 8.
inline void first_feature_last(uint8_t *row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 4) {
    uint32_t bits;
    memcpy(&bits, row + i, sizeof bits);
    bits = (bits >> 4 & 0x0F0F0F0Fu) | (bits & 0x0F0F0F0Fu) << 4;
    bits = (bits >> 2 & 0x33333333u) | (bits & 0x33333333u) << 2;
    bits = (bits >> 1 & 0x55555555u) | (bits & 0x55555555u) << 1;
    memcpy(row + i, &bits, sizeof bits);
  }
}

template <bool is_sign>
inline uint8_t *transposed(const Block &block, int64_t text) {
  // Each text begins where it would if the last word of those before it were full.
  const int64_t step = is_sign ? kWordTokens : 2;
  const int64_t words = block.token_offset(text) / step + text;
  return block.at<uint8_t>(block.plan.transposed) + words * 2 * block.plan.padded_dim;
}

// The bits of up to 15 tokens of each feature, as words.
template <class V, int tokens>
inline void transpose_bits(const Block &block, const uint8_t *rows, int64_t count,
                           uint16_t *words) {
  if constexpr (tokens > 1) {
    if (count < tokens) return transpose_bits<V, tokens - 1>(block, rows, count, words);
  }
  for (int64_t feature = 0; feature < block.plan.padded_dim; feature += V::kWords) {
    const uint8_t *bits = rows + feature / 8;
    typename V::Words word = V::no_words();
#pragma GCC unroll 15
    for (int t = 0; t < tokens; ++t) word = V::set_bits(word, bits + t * block.plan.row_bytes, t);
    V::store_words(words + feature, word);
  }
}

// Writes what pooling reads: for signs, the bits of 15 tokens of a feature as a word, the first
// token's the lowest; for uint8, the codes of two tokens of a feature side by side, 32 features of
// all tokens in a row.
template <class V, bool is_sign>
inline void transpose(const Block &block, int64_t text) {
  const int64_t tokens = block.tokens_of(text);
  const uint8_t *rows = block.rows_of(text);
  uint8_t *out = transposed<is_sign>(block, text);
  if (is_sign) {
    for (int64_t t = 0; t < tokens; t += kWordTokens, out += 2 * block.plan.padded_dim) {
      transpose_bits<V, kWordTokens>(block, rows + t * block.plan.row_bytes, tokens - t,
                                     reinterpret_cast<uint16_t *>(out));
    }
    return;
  }
  const int64_t all_pairs = (tokens + 1) / 2 * 2 * kDepthMultiple;  // bytes
  for (int64_t t = 0; t < tokens; t += 2, out += 2 * kDepthMultiple) {
    const uint8_t *first = rows + t * block.plan.row_bytes;
    // The last of an odd number is its own partner, of weight 0.
    const uint8_t *second = first + (t + 1 < tokens ? block.plan.row_bytes : 0);
    for (int64_t feature = 0; feature < block.plan.padded_dim; feature += V::kWords) {
      uint8_t *to = out + feature / kDepthMultiple * all_pairs + feature % kDepthMultiple * 2;
      V::store_byte_pairs(first + feature, second + feature, to);
    }
  }
}

// Codes as scoring reads them: padded rows, for signs with feature j as bit j.
template <bool is_sign>
inline void copy_rows(Block &block, const uint8_t *code, int64_t code_bytes) {
  uint8_t *row = block.at<uint8_t>(block.plan.rows);
  block.rows = row;
  const int64_t tokens = block.token_offset(block.texts);
  for (int64_t token = 0; token < tokens;
       ++token, code += code_bytes, row += block.plan.row_bytes) {
    memcpy(row, code, static_cast<size_t>(code_bytes));
    memset(row + code_bytes, 0, static_cast<size_t>(block.plan.row_bytes - code_bytes));
    if (!is_sign) continue;
    if (block.args.dim % 8 != 0) {
      row[code_bytes - 1] &= static_cast<uint8_t>(0xFF00 >> block.args.dim % 8);
    }
    first_feature_last(row, block.plan.row_bytes);
  }
}

template <class V, bool is_sign>
inline void unpack_block(Block &block) {
  const int64_t code_bytes = is_sign ? (block.args.dim + 7) / 8 : block.args.dim;
  const uint8_t *code = block.args.codes + block.args.offsets[block.first_text] * code_bytes;
  if (is_sign || code_bytes != block.plan.row_bytes) {
    copy_rows<is_sign>(block, code, code_bytes);
  } else {
    block.rows = code;  // as they should be
  }
  for (int64_t text = 0; text < block.texts; ++text) transpose<V, is_sign>(block, text);
}

}  // namespace

#endif
