// How a laid out head lies in memory: what bh_lay_out_head writes and bh_predict_heads reads.
//
// A matrix [rows, depth] is cut into panels of 16 rows; a panel is [padded depth / 2][16][2] int16,
// so that one vector holds two features of 16 rows, the operand of an int16 dot product. Queries
// are [padded dim / 2][attention heads][2]: a call stacks those of many heads into panels. Padding
// is zeros, of steps too, so nothing needs to know where it begins.
#ifndef BITHEADS_CPU_HEAD_LAYOUT_H
#define BITHEADS_CPU_HEAD_LAYOUT_H

#include "bitheads/kernels.h"

namespace bitheads {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kDepthMultiple = 32;
// Features whose products are summed in an int32 before the sum goes on in fp32.
inline constexpr int64_t kChunk = 256;
inline constexpr int64_t kMaxHeadDim = 65536;
inline constexpr int64_t kHeadAlignment = 64;

// Some panels, and the numbers of their rows.
struct MatrixView {
  int64_t panels;  // of one group: an attention head's rows of `value`, else the whole matrix
  int64_t padded_depth;
  const int16_t *weights;  // [groups, panels, padded_depth / 2, 16, 2]
  const float *step;       // [groups, panels, 16], as all below
  const float *row_sum;
  const float *bias;
};

struct HeadView {
  bh_position_pooling position_pooling;
  int64_t columns;  // of the pooling: attention heads, or 1
  int64_t inner;
  int64_t classes;
  const int16_t *query;    // [padded dim / 2, columns, 2], or null
  const float *log2_step;  // [columns], or null
  MatrixView value;        // columns groups; no panels unless BH_ATTENTION
  MatrixView dense;
  MatrixView output;
};

int64_t round_up(int64_t n, int64_t multiple) noexcept;

// Whether `head` was laid out, for codes of this dim and quantization.
bool head_fits(const bh_head *head, int64_t dim, bh_quantization quantization) noexcept;
HeadView view_head(const bh_head *head) noexcept;

}  // namespace bitheads

#endif
