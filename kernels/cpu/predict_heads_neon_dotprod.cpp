// predict_heads: scores by the dot products of NEON, four products of bytes in a lane.
//
// Codes are bytes, and a query is two: q = 256 high + low, with low from 0 to 255 and high signed.
// All products are of signed bytes, so low - 128 takes the place of low, and 128 times the sum of
// the token's codes is added in the end. What wraps on the way comes back: a score is an int32.
#include "dispatch.h"
#include "predict_heads_neon.h"

namespace {

struct NeonDotprod : Neon {
  static constexpr bool kOwnScores = true;

  // Pairs of int16, [padded_dim / 2][16][2], become quads of bytes, [padded_dim / 4][2][16][4]: the
  // high ones of four features, then the low ones.
  static void arrange_queries(const Block &block) {
    constexpr uint8_t kQuads[] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
    const uint8x16_t order = vld1q_u8(kQuads);
    uint8_t *quad = block.at<uint8_t>(block.plan.queries);
    const int64_t quads = block.columns / kPanel * block.plan.padded_dim / 4;
    for (int64_t i = 0; i < quads; ++i, quad += 2 * kPlane) {
      uint8x16_t high[kPlane / 16];
      uint8x16_t low[kPlane / 16];
#pragma GCC unroll 4
      for (int v = 0; v < kPlane / 16; ++v) {
        const uint8x16_t first = vld1q_u8(quad + 16 * v);
        const uint8x16_t second = vld1q_u8(quad + kPlane + 16 * v);
        high[v] = vqtbl1q_u8(vuzp2q_u8(first, second), order);
        low[v] = veorq_u8(vqtbl1q_u8(vuzp1q_u8(first, second), order), vdupq_n_u8(128));
      }
#pragma GCC unroll 4
      for (int v = 0; v < kPlane / 16; ++v) {
        vst1q_u8(quad + 16 * v, high[v]);
        vst1q_u8(quad + kPlane + 16 * v, low[v]);
      }
    }
  }

  // int32 [tokens, columns] of one text.
  template <bool is_sign>
  static void score(const Block &block, int64_t text) {
    const int64_t tokens = block.tokens_of(text);
    const uint8_t *rows = block.rows_of(text);
    const int64_t stride = 2 * block.plan.row_stride;
    int8_t *wide = block.at<int8_t>(block.plan.wide);
    for (int64_t first = 0; first < tokens; first += kWideTokens) {
      const int64_t count = smaller(kWideTokens, tokens - first);
      for (int64_t token = 0; token < count; ++token) {
        widen_row<is_sign>(rows + (first + token) * block.plan.row_bytes, block.plan.padded_dim,
                           wide + token * stride);
      }
      for (int64_t column = 0; column < block.columns; column += kPanel) {
        const ScoreArgs args = {
            wide,
            stride,
            block.at<int8_t>(block.plan.queries) + column * block.plan.padded_dim * 2,
            block.plan.padded_dim,
            block.at<int32_t>(block.plan.scores) + first * block.columns + column,
            block.columns};
        score_panel(count, args);
      }
    }
  }

 private:
  static constexpr int kPlane = 4 * kPanel;  // bytes of one plane of a quad

  struct ScoreArgs {
    const int8_t *codes;
    int64_t codes_stride;
    const int8_t *queries;
    int64_t padded_dim;
    int32_t *out;
    int64_t out_stride;
  };

  // Codes as signed bytes, 0 and 1 or less 128, and after them their sum.
  template <bool is_sign>
  static void widen_row(const uint8_t *row, int64_t padded_dim, int8_t *out) {
    constexpr uint8_t kBits[] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    I32 sum = zero();
    for (int64_t feature = 0; feature < padded_dim; feature += 16) {
      int8x16_t codes;
      if (is_sign) {
        const uint8_t *bits = row + feature / 8;
        const uint8x16_t both = vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1]));
        codes = vreinterpretq_s8_u8(vshrq_n_u8(vtstq_u8(both, vld1q_u8(kBits)), 7));
      } else {
        codes = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(row + feature), vdupq_n_u8(128)));
      }
      vst1q_s8(out + feature, codes);
      sum = vdotq_s32(sum, codes, vdupq_n_s8(1));
    }
    const int32_t total = vaddvq_s32(sum);
    memcpy(out + padded_dim, &total, sizeof total);
  }

  // Any number of rows, in tiles of nearly the same size.
  static void score_panel(int64_t rows, ScoreArgs args) {
    const int64_t tiles = (rows + kRows - 1) / kRows;
    const int8_t *codes = args.codes;
    int32_t *out = args.out;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = rows * tile / tiles;
      args.codes = codes + first * args.codes_stride;
      args.out = out + first * args.out_stride;
      score_tile_of<kRows>(rows * (tile + 1) / tiles - first, args);
    }
  }

  template <int rows>
  static void score_tile_of(int64_t num_rows, const ScoreArgs &args) {
    if constexpr (rows > 1) {
      if (num_rows < rows) return score_tile_of<rows - 1>(num_rows, args);
    }
    score_tile<rows>(args);
  }

  template <int rows>
  __attribute__((noinline)) static void score_tile(const ScoreArgs &args) {
    I32 sum[rows][kPanel / kLanes];
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanel / kLanes; ++v) sum[row][v] = zero();
    }
    add_plane<rows>(args, args.queries, sum);
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanel / kLanes; ++v) sum[row][v] = vshlq_n_s32(sum[row][v], 8);
    }
    add_plane<rows>(args, args.queries + kPlane, sum);
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
      int32_t total;
      memcpy(&total, args.codes + row * args.codes_stride + args.padded_dim, sizeof total);
      const I32 rest = vdupq_n_s32(128 * total);
#pragma GCC unroll 16
      for (int v = 0; v < kPanel / kLanes; ++v) {
        store(args.out + row * args.out_stride + v * kLanes, vaddq_s32(sum[row][v], rest));
      }
    }
  }

  template <int rows>
  static void add_plane(const ScoreArgs &args, const int8_t *plane,
                        I32 (&sum)[rows][kPanel / kLanes]) {
    const int8_t *codes = args.codes;
    const int64_t stride = args.codes_stride;
    for (int64_t feature = 0; feature < args.padded_dim; feature += 16, codes += 16) {
      int8x16_t inputs[rows];
#pragma GCC unroll 16
      for (int row = 0; row < rows; ++row) inputs[row] = vld1q_s8(codes + row * stride);
      add_quad<0, rows>(sum, inputs, plane);
      add_quad<1, rows>(sum, inputs, plane + 2 * kPlane);
      add_quad<2, rows>(sum, inputs, plane + 4 * kPlane);
      add_quad<3, rows>(sum, inputs, plane + 6 * kPlane);
      plane += 8 * kPlane;
    }
  }

  // Quad number `quad` of every row's inputs, by the quads of 16 columns.
  template <int quad, int rows>
  static void add_quad(I32 (&sum)[rows][kPanel / kLanes], const int8x16_t (&inputs)[rows],
                       const int8_t *queries) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanel / kLanes; ++v) {
      const int8x16_t four = vld1q_s8(queries + 16 * v);
#pragma GCC unroll 16
      for (int row = 0; row < rows; ++row) {
        sum[row][v] = vdotq_laneq_s32(sum[row][v], four, inputs[row], quad);
      }
    }
    // As in add_pair: nothing is to be loaded ahead.
    __asm__ volatile("" : : : "memory");
  }
};

}  // namespace

namespace bitheads {

void predict_heads_neon_dotprod(const PredictHeadsCall &call) noexcept {
  run_predict_heads<NeonDotprod>(call);
}

}  // namespace bitheads
