// How a call of predict_heads is cut into blocks, and where everything lies in its workspace.
//
//   for each block of texts:                     their codes are unpacked once
//     for each group of heads:                   as many columns as keep their queries in the cache
//       scores and softmax weights of all columns
//       for each head: pooled codes, a few columns at a time ─▶ values ─▶ hidden ─▶ logits
#ifndef BITHEADS_CPU_PREDICT_HEADS_PLAN_H
#define BITHEADS_CPU_PREDICT_HEADS_PLAN_H

#include "bitheads/kernels.h"
#include "head_layout.h"

namespace bitheads {

// Columns that are pooled before their values are computed: what is pooled stays in the cache.
inline constexpr int64_t kSignColumns = 4;
inline constexpr int64_t kUint8Columns = 8;
// Tokens of a word of `transposed`: five lookups of three, or three of five.
inline constexpr int64_t kWordTokens = 15;
// Tokens whose codes are widened to int16 together.
inline constexpr int64_t kWideTokens = 64;

// Items between the rows of an operand: those of a tile, at a power of two apart, would be at the
// same place of the cache and drive each other out.
inline constexpr int64_t kRowPadding = 32;

struct PredictHeadsPlan {
  int64_t padded_dim;
  int64_t row_stride;     // padded_dim and its padding
  int64_t row_bytes;      // of a token in `rows`
  int64_t block_texts;    // at most
  int64_t block_tokens;   // at most, but for a single text
  int64_t group_columns;  // at most, but for a single head; a multiple of 16
  int64_t pass_columns;   // kSignColumns or kUint8Columns
  int64_t padded_inner;   // of the widest head
  int64_t bytes;

  // Offsets in the workspace.
  int64_t rows;        // uint8 [block_tokens, row_bytes]: bit j of a row is feature j; or uint8
  int64_t transposed;  // uint16 [words, padded_dim]: 15 tokens of a bit, or two of a byte
  int64_t wide;        // int16 [kWideTokens, row_stride]
  int64_t queries;     // int16 [group_columns / 16, padded_dim / 2, 16, 2]
  int64_t log2_step;   // float [group_columns]
  int64_t scores;      // int32 or float [longest text, group_columns]
  int64_t weights;     // uint32 [group_columns / 16, tokens, 16] of each text; pairs of int16
  int64_t half;        // int32 [block_texts, group_columns]: h of SPEC.md
  int64_t shift;       // int32 [block_texts, group_columns]: b of SPEC.md
  int64_t alpha;       // float [block_texts, group_columns]
  int64_t beta;        // float [block_texts, group_columns]
  int64_t tables;      // uint16 [words * 5, pass_columns, 32]: sums of weights, to look up; or
                       // uint32 [pairs of tokens, pass_columns]: weights side by side
  int64_t pooled;      // int16 [block_texts, pass_columns, row_stride]
  int64_t values;      // float [block_texts, padded_dim + 16]
  int64_t fixed;       // int16 [block_texts, row_stride]
  int64_t hidden;      // int16 [block_texts, padded_inner + kRowPadding]
  int64_t row_alpha;   // float [block_texts]
  int64_t row_beta;    // float [block_texts]
  int64_t sums;        // float [block_texts, 32]
};

// Arguments that are checked, and what else the loops need.
struct PredictHeadsCall {
  const bh_predict_heads_args &args;
  const PredictHeadsPlan &plan;
};

}  // namespace bitheads

#endif
