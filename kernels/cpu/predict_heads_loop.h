// predict_heads once, over small vector types V that each level defines. What is computed, to the
// bit, is in kernels/SPEC.md; how a call is cut is in predict_heads_plan.h.
//
//   V::I32, V::F32               kLanes numbers
//   V::dot(sum, a, b)            sum + the products of a's and b's pairs of int16
//   V::Words                     kWords uint16: a feature each, a token a bit
//   V::Table                     sums of the weights of each subset of kLookupTokens tokens
//   V::kRows, V::kPanels         rows by panels of 16 columns that a tile keeps in registers
//
// As in pool_and_pack_loop.h, everything has internal linkage and nothing calls an inline function
// of another header.
#ifndef BITHEADS_CPU_PREDICT_HEADS_LOOP_H
#define BITHEADS_CPU_PREDICT_HEADS_LOOP_H

#include <string.h>

#include "predict_heads_plan.h"

namespace {

using bitheads::HeadView;
using bitheads::kChunk;
using bitheads::kDepthMultiple;
using bitheads::kPanelRows;
using bitheads::kWideTokens;
using bitheads::kWordTokens;
using bitheads::MatrixView;
using bitheads::PredictHeadsCall;
using bitheads::PredictHeadsPlan;

constexpr int kPanel = static_cast<int>(kPanelRows);

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

inline int64_t round_up_to(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// ---- Products of int16 matrices, summed in int32.

enum class Sums { kStoreInt, kStoreFloat, kAddFloat };

// Rows of `a` by panels of `b`, into 16 columns a panel of `out`.
struct TileArgs {
  const int16_t *a;
  int64_t a_stride;
  const int16_t *b;
  int64_t b_stride;  // from panel to panel
  int64_t pairs;     // of features
  void *out;
  int64_t out_stride;
  Sums sums;
  const int16_t *next;  // what is read after all rows are done, or null
};

// Asks for what is needed soon, a cache line a step.
inline void prefetch(const int16_t *weights) {
  __builtin_prefetch(weights, 0, 2);
}

template <class V, int rows, int panels>
void multiply_tile(const TileArgs &args) {
  constexpr int64_t kAhead = 8 * 2 * kPanel;
  constexpr int kVectors = panels * kPanel / V::kLanes;
  typename V::I32 sum[rows][kVectors];
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[row][v] = V::zero();
  }
  const int16_t *a = args.a;
  const int16_t *b = args.b;
  const int16_t *next = args.next == nullptr ? b + kAhead : args.next;
  for (int64_t pair = 0; pair < args.pairs; ++pair, a += 2, b += 2 * kPanel, next += 2 * kPanel) {
    if (args.sums != Sums::kStoreInt) prefetch(next);  // queries are in the cache
    typename V::I32 weights[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const int panel = v * V::kLanes / kPanel;
      weights[v] = V::load(b + panel * args.b_stride + 2 * (v * V::kLanes % kPanel));
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
      const typename V::I32 inputs = V::broadcast_at(a + row * args.a_stride);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[row][v] = V::dot(sum[row][v], inputs, weights[v]);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      // int32 and float are of one size: `out` is either.
      float *out = static_cast<float *>(args.out) + row * args.out_stride + v * V::kLanes;
      if (args.sums == Sums::kStoreInt) {
        V::store(out, sum[row][v]);
        continue;
      }
      typename V::F32 total = V::to_float(sum[row][v]);
      if (args.sums == Sums::kAddFloat) total = V::add(V::load_float(out), total);
      V::store_float(out, total);
    }
  }
}

template <class V, int panels, int rows>
void multiply_tile_of(int64_t num_rows, const TileArgs &args) {
  if constexpr (rows > 1) {
    if (num_rows < rows) return multiply_tile_of<V, panels, rows - 1>(num_rows, args);
  }
  multiply_tile<V, rows, panels>(args);
}

// Any number of rows, in tiles of nearly the same size.
template <class V>
void multiply(int64_t rows, int64_t panels, TileArgs args) {
  const int64_t tiles = (rows + V::kRows - 1) / V::kRows;
  const int16_t *a = args.a;
  const int16_t *next = args.next;  // as many panels as now, one during each of the first tiles
  char *out = static_cast<char *>(args.out);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = rows * tile / tiles;
    const int64_t count = rows * (tile + 1) / tiles - first;
    args.a = a + first * args.a_stride;
    args.out = out + first * args.out_stride * 4;
    args.next = tile < panels && next != nullptr ? next + tile * args.b_stride : nullptr;
    if (panels == V::kPanels) {
      multiply_tile_of<V, V::kPanels, V::kRows>(count, args);
    } else {
      multiply_tile_of<V, 1, V::kRows>(count, args);
    }
  }
}

// SPEC.md's product: consume(row, panel, sums of 16 columns) for every row and panel.
template <class V, class Consume>
void product(const int16_t *a, int64_t a_stride, int64_t rows, const MatrixView &matrix,
             int64_t group, float *sums, const Consume &consume) {
  const int64_t panel_stride = matrix.padded_depth * kPanel;
  const int16_t *weights = matrix.weights + group * matrix.panels * panel_stride;
  constexpr int64_t kSumsStride = 2 * kPanel;
  for (int64_t panel = 0; panel < matrix.panels; panel += V::kPanels) {
    const int64_t panels = smaller(V::kPanels, matrix.panels - panel);
    for (int64_t chunk = 0; chunk < matrix.padded_depth; chunk += kChunk) {
      const int16_t *b = weights + panel * panel_stride + chunk * kPanel;
      const int64_t depth = smaller(kChunk, matrix.padded_depth - chunk);
      const Sums how = chunk == 0 ? Sums::kStoreFloat : Sums::kAddFloat;
      const bool is_last = chunk + kChunk >= matrix.padded_depth;
      const int16_t *next =
          is_last ? weights + (panel + V::kPanels) * panel_stride : b + kChunk * kPanel;
      multiply<V>(rows, panels,
                  {a + chunk, a_stride, b, panel_stride, depth / 2, sums, kSumsStride, how, next});
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < panels; ++i) {
        consume(row, panel + i, sums + row * kSumsStride + i * kPanel);
      }
    }
  }
}

// ---- Elementary functions.

template <class V>
typename V::F32 exp2_minus(typename V::F32 z) {
  // ln(2)^i / i!
  constexpr float kCoefficients[] = {1.0f,          0.693147182f,   0.240226507f,
                                     0.0555041087f, 0.00961812911f, 0.00133335581f};
  z = V::min(z, V::broadcast_float(100.0f));
  const typename V::I32 k = V::round(z);
  const typename V::F32 f = V::sub(V::to_float(k), z);
  typename V::F32 p = V::broadcast_float(kCoefficients[5]);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) p = V::add(V::mul(p, f), V::broadcast_float(kCoefficients[i]));
  return V::mul(p, V::power_of_half(k));
}

template <class V>
typename V::F32 tanh_of(typename V::F32 y) {
  constexpr float kTwoLog2E = 2.88539008f;
  const typename V::F32 one = V::broadcast_float(1.0f);
  const typename V::F32 t = exp2_minus<V>(V::mul(V::magnitude(y), V::broadcast_float(kTwoLog2E)));
  return V::with_sign_of(V::div(V::sub(one, t), V::add(one, t)), y);
}

template <class V>
typename V::F32 affine(typename V::F32 sum, float alpha, float beta, const MatrixView &matrix,
                       int64_t lane) {
  const typename V::F32 scaled =
      V::mul(V::mul(sum, V::load_float(matrix.step + lane)), V::broadcast_float(alpha));
  const typename V::F32 moved =
      V::mul(V::broadcast_float(beta), V::load_float(matrix.row_sum + lane));
  return V::add(V::add(scaled, moved), V::load_float(matrix.bias + lane));
}

inline int32_t bits_of(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float power_of_two(int32_t exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

// ---- The call.

template <class V, bool is_sign>
class PredictHeads {
  using I32 = typename V::I32;
  using F32 = typename V::F32;
  static constexpr int kShift = is_sign ? 2 : 9;
  static constexpr int32_t kTotal = is_sign ? 65534 : 32767;  // of a text's weights, at most
  static constexpr float kMaxGain =
      is_sign ? 1.0f : 256.0f;  // of the total, where no weight is large
  static constexpr int kMaxPass =
      static_cast<int>(is_sign ? bitheads::kSignColumns : bitheads::kUint8Columns);

 public:
  explicit PredictHeads(const PredictHeadsCall &call)
      : args_(call.args), plan_(call.plan), base_(static_cast<uint8_t *>(call.args.workspace)) {}

  void run() {
    for (first_text_ = 0; first_text_ < args_.texts; first_text_ += texts_) {
      texts_ = count_block();
      unpack_block();
      for (int64_t head = 0; head < args_.num_heads;) head = predict_group(head);
    }
  }

 private:
  template <class Item>
  Item *at(int64_t offset) const {
    return reinterpret_cast<Item *>(base_ + offset);
  }

  int64_t tokens_of(int64_t text) const {
    const int64_t *offsets = args_.offsets + first_text_ + text;
    return offsets[1] - offsets[0];
  }

  // Of the block's tokens, the text's first.
  int64_t token_offset(int64_t text) const {
    return args_.offsets[first_text_ + text] - args_.offsets[first_text_];
  }

  int64_t count_block() const {
    const int64_t *first = args_.offsets + first_text_;
    // Blocks of nearly the same number of texts.
    const int64_t left = args_.texts - first_text_;
    const int64_t blocks = (left + plan_.block_texts - 1) / plan_.block_texts;
    const int64_t most = (left + blocks - 1) / blocks;
    int64_t texts = 1;
    while (texts < most && first[texts + 1] - first[0] <= plan_.block_tokens) ++texts;
    return texts;
  }

  // ---- Codes.

  void unpack_block() {
    const int64_t code_bytes = is_sign ? (args_.dim + 7) / 8 : args_.dim;
    const uint8_t *code = args_.codes + args_.offsets[first_text_] * code_bytes;
    if (is_sign || code_bytes != plan_.row_bytes) {
      copy_rows(code, code_bytes);
    } else {
      rows_ = code;  // as they should be
    }
    for (int64_t text = 0; text < texts_; ++text) transpose(text);
  }

  void copy_rows(const uint8_t *code, int64_t code_bytes) {
    uint8_t *row = at<uint8_t>(plan_.rows);
    rows_ = row;
    const int64_t tokens = token_offset(texts_);
    for (int64_t token = 0; token < tokens; ++token, code += code_bytes, row += plan_.row_bytes) {
      memcpy(row, code, static_cast<size_t>(code_bytes));
      memset(row + code_bytes, 0, static_cast<size_t>(plan_.row_bytes - code_bytes));
      if (!is_sign) continue;
      if (args_.dim % 8 != 0) row[code_bytes - 1] &= static_cast<uint8_t>(0xFF00 >> args_.dim % 8);
      first_feature_last(row, plan_.row_bytes);
    }
  }

  const uint8_t *rows_of(int64_t text) const {
    return rows_ + token_offset(text) * plan_.row_bytes;
  }

  // Bit 7 - j % 8 of a byte becomes bit j % 8.
  static void first_feature_last(uint8_t *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 4) {
      uint32_t bits;
      memcpy(&bits, row + i, sizeof bits);
      bits = (bits >> 4 & 0x0F0F0F0Fu) | (bits & 0x0F0F0F0Fu) << 4;
      bits = (bits >> 2 & 0x33333333u) | (bits & 0x33333333u) << 2;
      bits = (bits >> 1 & 0x55555555u) | (bits & 0x55555555u) << 1;
      memcpy(row + i, &bits, sizeof bits);
    }
  }

  // What pooling reads: for signs, the bits of 15 tokens of a feature as a word, the first token's
  // the lowest; for uint8, the codes of two tokens of a feature side by side, 32 features of all
  // tokens in a row.
  void transpose(int64_t text) const {
    const int64_t tokens = tokens_of(text);
    const uint8_t *rows = rows_of(text);
    uint8_t *out = transposed(text);
    if (is_sign) {
      for (int64_t t = 0; t < tokens; t += kWordTokens, out += 2 * plan_.padded_dim) {
        transpose_bits<kWordTokens>(rows + t * plan_.row_bytes, tokens - t,
                                    reinterpret_cast<uint16_t *>(out));
      }
      return;
    }
    const int64_t all_pairs = (tokens + 1) / 2 * 2 * kDepthMultiple;  // bytes
    for (int64_t t = 0; t < tokens; t += 2, out += 2 * kDepthMultiple) {
      const uint8_t *first = rows + t * plan_.row_bytes;
      // The last of an odd number is its own partner, of weight 0.
      const uint8_t *second = first + (t + 1 < tokens ? plan_.row_bytes : 0);
      for (int64_t feature = 0; feature < plan_.padded_dim; feature += V::kWords) {
        uint8_t *to = out + feature / kDepthMultiple * all_pairs + feature % kDepthMultiple * 2;
        V::store_byte_pairs(first + feature, second + feature, to);
      }
    }
  }

  uint8_t *transposed(int64_t text) const {
    // Each text begins where it would if the last word of those before it were full.
    const int64_t step = is_sign ? kWordTokens : 2;
    const int64_t words = token_offset(text) / step + text;
    return at<uint8_t>(plan_.transposed) + words * 2 * plan_.padded_dim;
  }

  template <int tokens>
  void transpose_bits(const uint8_t *rows, int64_t count, uint16_t *words) const {
    if constexpr (tokens > 1) {
      if (count < tokens) return transpose_bits<tokens - 1>(rows, count, words);
    }
    for (int64_t feature = 0; feature < plan_.padded_dim; feature += V::kWords) {
      const uint8_t *bits = rows + feature / 8;
      typename V::Words word = V::no_words();
#pragma GCC unroll 15
      for (int t = 0; t < tokens; ++t) word = V::set_bits(word, bits + t * plan_.row_bytes, t);
      V::store_words(words + feature, word);
    }
  }

  // ---- Heads whose queries are scored together.

  int64_t predict_group(int64_t first_head) {
    int64_t columns = 0;
    int64_t end = first_head;
    while (end < args_.num_heads) {
      const int64_t more = bitheads::view_head(args_.heads[end]).columns;
      if (columns + more > plan_.group_columns) break;
      columns += more;
      ++end;
    }
    columns_ = round_up_to(columns, kPanelRows);
    stack_queries(first_head, end);
    for (int64_t text = 0; text < texts_; ++text) {
      score(text);
      weigh(text);
    }
    int64_t column = 0;
    for (int64_t head = first_head; head < end; ++head) {
      const HeadView view = bitheads::view_head(args_.heads[head]);
      predict_head(head, view, column);
      column += view.columns;
    }
    return end;
  }

  void stack_queries(int64_t first_head, int64_t end) const {
    int16_t *panels = at<int16_t>(plan_.queries);
    float *steps = at<float>(plan_.log2_step);
    const int64_t panel_stride = plan_.padded_dim * kPanel;
    memset(panels, 0, static_cast<size_t>(columns_ * plan_.padded_dim * 2));
    memset(steps, 0, static_cast<size_t>(columns_ * 4));
    int64_t column = 0;
    for (int64_t head = first_head; head < end; ++head) {
      const HeadView view = bitheads::view_head(args_.heads[head]);
      for (int64_t c = 0; view.query != nullptr && c < view.columns;) {
        // As many columns as are together in both.
        const int64_t lane = (column + c) % kPanel;
        const int64_t count = smaller(kPanel - lane, view.columns - c);
        const int16_t *from = view.query + 2 * c;
        int16_t *to = panels + (column + c) / kPanel * panel_stride + 2 * lane;
        for (int64_t pair = 0; pair < plan_.padded_dim / 2; ++pair) {
          memcpy(to + pair * 2 * kPanel, from + pair * 2 * view.columns,
                 static_cast<size_t>(count * 4));
        }
        memcpy(steps + column + c, view.log2_step + c, static_cast<size_t>(count * 4));
        c += count;
      }
      column += view.columns;
    }
  }

  void score(int64_t text) const {
    const int64_t tokens = tokens_of(text);
    const uint8_t *rows = rows_of(text);
    int16_t *wide = at<int16_t>(plan_.wide);
    for (int64_t first = 0; first < tokens; first += kWideTokens) {
      const int64_t count = smaller(kWideTokens, tokens - first);
      for (int64_t token = 0; token < count; ++token) {
        widen(rows + (first + token) * plan_.row_bytes, wide + token * plan_.row_stride);
      }
      for (int64_t column = 0; column < columns_; column += V::kPanels * kPanel) {
        const int64_t panels = smaller(V::kPanels, (columns_ - column) / kPanel);
        multiply<V>(count, panels,
                    {wide, plan_.row_stride, at<int16_t>(plan_.queries) + column * plan_.padded_dim,
                     plan_.padded_dim * kPanel, plan_.padded_dim / 2,
                     at<int32_t>(plan_.scores) + first * columns_ + column, columns_,
                     Sums::kStoreInt, nullptr});
      }
    }
  }

  void widen(const uint8_t *row, int16_t *out) const {
    for (int64_t feature = 0; feature < plan_.padded_dim; feature += V::kWords) {
      if (is_sign) {
        V::widen_bits(row + feature / 8, out + feature);
      } else {
        V::widen_bytes(row + feature, out + feature);
      }
    }
  }

  // Scores become weights: for signs, pairs of the same one; for uint8, those of two tokens.
  void weigh(int64_t text) const {
    const int64_t tokens = tokens_of(text);
    for (int64_t column = 0; column < columns_; column += V::kLanes) {
      int32_t *scores = at<int32_t>(plan_.scores) + column;
      I32 most = V::load(scores);
      for (int64_t t = 1; t < tokens; ++t) most = V::max(most, V::load(scores + t * columns_));
      const F32 step = V::load_float(at<float>(plan_.log2_step) + column);
      F32 total = V::broadcast_float(-0.0f);
      for (int64_t t = 0; t < tokens; ++t) {
        int32_t *score = scores + t * columns_;
        const F32 distance = V::to_float(V::sub_int(most, V::load(score)));
        const F32 e = exp2_minus<V>(V::mul(distance, step));
        total = V::add(total, e);
        V::store_float(reinterpret_cast<float *>(score), e);
      }
      // The power of two by which the total may be larger: the largest weight is total / E.
      const I32 gain = V::exponent(V::min(total, V::broadcast_float(kMaxGain)));
      const F32 all = V::mul(V::broadcast_float(static_cast<float>(kTotal)),
                             V::power_of_half(V::sub_int(V::zero(), gain)));
      const F32 scale = V::div(V::sub(all, V::broadcast_float(static_cast<float>(tokens))), total);
      uint32_t *weights = weights_of(text, column);
      I32 sum = V::zero();
      for (int64_t t = 0; t < tokens; t += is_sign ? 1 : 2) {
        const I32 first = weight_at(scores, t, scale);
        I32 second = first;
        sum = V::add_int(sum, first);
        if (!is_sign) {
          second = t + 1 < tokens ? weight_at(scores, t + 1, scale) : V::zero();
          sum = V::add_int(sum, second);
        }
        V::store(weights + (is_sign ? t : t / 2) * kPanel, V::pairs(first, second));
      }
      store_scales(text, column, sum, V::add_int(gain, V::broadcast(kShift)));
    }
  }

  I32 weight_at(const int32_t *scores, int64_t t, F32 scale) const {
    const float *e = reinterpret_cast<const float *>(scores + t * columns_);
    return V::round(V::mul(V::load_float(e), scale));
  }

  // A column's weights, 16 apart: a panel of columns is together, [tokens, 16]. Half the rows are
  // enough for uint8; each text has room for all.
  uint32_t *weights_of(int64_t text, int64_t column) const {
    return at<uint32_t>(plan_.weights) + token_offset(text) * columns_ +
           column / kPanel * kPanel * tokens_of(text) + column % kPanel;
  }

  void store_scales(int64_t text, int64_t column, I32 sum, I32 shift) const {
    const int64_t where = text * columns_ + column;
    const I32 half = V::template shift_right<1>(is_sign ? sum : V::times_255(sum));
    const F32 total = V::to_float(sum);
    const F32 unit = V::power_of_half(V::sub_int(V::zero(), shift));
    // What the shift drops, on average.
    const F32 dropped = V::mul(V::sub(unit, V::broadcast_float(1.0f)), V::broadcast_float(0.5f));
    V::store(at<int32_t>(plan_.half) + where, half);
    V::store(at<int32_t>(plan_.shift) + where, shift);
    V::store_float(at<float>(plan_.alpha) + where, V::div(unit, total));
    V::store_float(at<float>(plan_.beta) + where,
                   V::div(V::add(V::to_float(half), dropped), total));
  }

  void weigh_first_token(int64_t text, int64_t column) const {
    const int64_t tokens = tokens_of(text);
    const uint32_t weight = static_cast<uint32_t>(kTotal - tokens);
    uint32_t *weights = weights_of(text, column);
    const int64_t rows = is_sign ? tokens : (tokens + 1) / 2;
    for (int64_t t = 0; t < rows; ++t) weights[t * kPanel] = 0;
    weights[0] = is_sign ? weight * 0x10001u : weight;
    const int64_t where = text * columns_ + column;
    const int32_t h = static_cast<int32_t>(is_sign ? weight : 255 * weight) >> 1;
    constexpr float kUnit = 1 << kShift;
    at<int32_t>(plan_.half)[where] = h;
    at<int32_t>(plan_.shift)[where] = kShift;
    at<float>(plan_.alpha)[where] = kUnit / static_cast<float>(weight);
    at<float>(plan_.beta)[where] =
        (static_cast<float>(h) + (kUnit - 1) / 2) / static_cast<float>(weight);
  }

  // ---- One head.

  void predict_head(int64_t head, const HeadView &view, int64_t column) const {
    const int16_t *inputs = at<int16_t>(plan_.pooled);
    const int64_t input_stride = plan_.row_stride;
    float *alpha = at<float>(plan_.row_alpha);
    float *beta = at<float>(plan_.row_beta);
    if (view.position_pooling == BH_ATTENTION) {
      for (int64_t first = 0; first < view.columns; first += plan_.pass_columns) {
        const int64_t count = smaller(plan_.pass_columns, view.columns - first);
        pool(column + first, count);
        for (int64_t i = 0; i < count; ++i)
          project(view, column, first + i, i * plan_.row_stride, count * plan_.row_stride);
      }
      for (int64_t text = 0; text < texts_; ++text) fix_values(text);
      inputs = at<int16_t>(plan_.fixed);
    } else {
      if (view.position_pooling == BH_CLS) {
        for (int64_t text = 0; text < texts_; ++text) weigh_first_token(text, column);
      }
      pool(column, 1);
      for (int64_t text = 0; text < texts_; ++text) {
        alpha[text] = at<float>(plan_.alpha)[text * columns_ + column];
        beta[text] = at<float>(plan_.beta)[text * columns_ + column];
      }
    }
    const int64_t inner = round_up_to(view.inner, kDepthMultiple) + bitheads::kRowPadding;
    int16_t *hidden = at<int16_t>(plan_.hidden);
    if (view.output.padded_depth > view.dense.panels * kPanel) {
      for (int64_t text = 0; text < texts_; ++text) {
        memset(hidden + text * inner + view.dense.panels * kPanel, 0, kPanel * 2);
      }
    }
    float *sums = at<float>(plan_.sums);
    product<V>(inputs, input_stride, texts_, view.dense, 0, sums,
               [&](int64_t row, int64_t panel, const float *sum) {
                 for (int i = 0; i < kPanel; i += V::kLanes) {
                   const F32 y = affine<V>(V::load_float(sum + i), alpha[row], beta[row],
                                           view.dense, panel * kPanel + i);
                   const F32 fixed = V::mul(tanh_of<V>(y), V::broadcast_float(8192.0f));
                   V::store_int16(hidden + row * inner + panel * kPanel + i, V::round(fixed));
                 }
               });
    float *logits = args_.logits[head] + first_text_ * view.classes;
    product<V>(hidden, inner, texts_, view.output, 0, sums,
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

  // An attention head's values of all texts; the next one overwrites its padding.
  void project(const HeadView &view, int64_t column, int64_t head, int64_t offset,
               int64_t stride) const {
    const int64_t rows = args_.dim / view.columns;
    const int64_t value_stride = plan_.padded_dim + kPanel;
    const float *alpha = at<float>(plan_.alpha) + column + head;
    const float *beta = at<float>(plan_.beta) + column + head;
    const int64_t lane = head * view.value.panels * kPanel;
    float *values = at<float>(plan_.values) + head * rows;
    product<V>(at<int16_t>(plan_.pooled) + offset, stride, texts_, view.value, head,
               at<float>(plan_.sums), [&](int64_t row, int64_t panel, const float *sum) {
                 for (int i = 0; i < kPanel; i += V::kLanes) {
                   const int64_t where = row * columns_;
                   V::store_float(values + row * value_stride + panel * kPanel + i,
                                  affine<V>(V::load_float(sum + i), alpha[where], beta[where],
                                            view.value, lane + panel * kPanel + i));
                 }
               });
  }

  // Values to integers under a power of two of the text.
  void fix_values(int64_t text) const {
    float *values = at<float>(plan_.values) + text * (plan_.padded_dim + kPanel);
    int16_t *fixed = at<int16_t>(plan_.fixed) + text * plan_.row_stride;
    for (int64_t i = args_.dim; i < plan_.padded_dim; ++i) values[i] = 0;
    F32 most = V::broadcast_float(0.0f);
    for (int64_t i = 0; i < plan_.padded_dim; i += V::kLanes) {
      most = V::max_float(most, V::magnitude(V::load_float(values + i)));
    }
    float lanes[V::kLanes];
    V::store_float(lanes, most);
    float largest = 0;
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    int32_t exponent = 0;
    if (largest > 0) exponent = 12 - ((bits_of(largest) >> 23) - 127);
    if (exponent > 100) exponent = 100;
    const F32 scale = V::broadcast_float(power_of_two(exponent));
    for (int64_t i = 0; i < plan_.padded_dim; i += V::kLanes) {
      V::store_int16(fixed + i, V::round(V::mul(V::load_float(values + i), scale)));
    }
    at<float>(plan_.row_alpha)[text] = power_of_two(-exponent);
    at<float>(plan_.row_beta)[text] = 0;
  }

  // ---- Pooling: int16 [texts, count, row_stride].

  void pool(int64_t column, int64_t count) const {
    int16_t *out = at<int16_t>(plan_.pooled);
    for (int64_t text = 0; text < texts_; ++text, out += count * plan_.row_stride) {
      if (is_sign) {
        pool_bits_of<kMaxPass>(text, column, count, out);
      } else {
        pool_bytes_of<kMaxPass>(text, column, count, out);
      }
    }
  }

  template <int columns>
  void pool_bits_of(int64_t text, int64_t column, int64_t count, int16_t *out) const {
    if constexpr (columns > 1) {
      if (count < columns) return pool_bits_of<columns - 1>(text, column, count, out);
    }
    make_tables<columns>(text, column);
    constexpr int kWide = 4;
    int64_t feature = 0;
    for (; feature + kWide * V::kWords <= plan_.padded_dim; feature += kWide * V::kWords) {
      look_up<columns, kWide>(text, column, feature, out);
    }
    for (; feature < plan_.padded_dim; feature += V::kWords) {
      look_up<columns, 1>(text, column, feature, out);
    }
  }

  // Table of kLookupTokens tokens: entry i is the sum of the weights of those whose bit is in i.
  template <int columns>
  void make_tables(int64_t text, int64_t column) const {
    const int64_t tokens = tokens_of(text);
    for (int c = 0; c < columns; ++c) {
      const uint32_t *weight = weights_of(text, column + c);
      uint16_t *table = at<uint16_t>(plan_.tables) + c * V::kTable;
      int64_t left = tokens;
      for (; left >= V::kLookupTokens; left -= V::kLookupTokens) {
        V::store_table(table, sum_weights(weight, V::kLookupTokens));
        table += columns * V::kTable;
        weight += V::kLookupTokens * kPanel;
      }
      if (left > 0) V::store_table(table, sum_weights(weight, static_cast<int>(left)));
    }
  }

  static typename V::Table sum_weights(const uint32_t *weights, int tokens) {
    typename V::Table table = V::no_table();
#pragma GCC unroll 5
    for (int t = 0; t < tokens; ++t) table = V::add_weight(table, t, weights + t * kPanel);
    return table;
  }

  template <int columns, int vectors>
  void look_up(int64_t text, int64_t column, int64_t feature, int16_t *out) const {
    typename V::Words sum[columns][vectors];
#pragma GCC unroll 16
    for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) sum[c][v] = V::no_words();
    }
    const uint16_t *words = reinterpret_cast<uint16_t *>(transposed(text)) + feature;
    const uint16_t *tables = at<uint16_t>(plan_.tables);
    int64_t lookups = (tokens_of(text) + V::kLookupTokens - 1) / V::kLookupTokens;
    for (; lookups > 0; lookups -= V::kLookups, words += plan_.padded_dim) {
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
    const int32_t *half = at<int32_t>(plan_.half) + text * columns_ + column;
#pragma GCC unroll 16
    for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) {
        V::store_quarter(out + c * plan_.row_stride + feature + v * V::kWords, sum[c][v], half[c]);
      }
    }
  }

  template <int columns>
  void pool_bytes_of(int64_t text, int64_t column, int64_t count, int16_t *out) const {
    if constexpr (columns > 1) {
      if (count < columns) return pool_bytes_of<columns - 1>(text, column, count, out);
    }
    gather_weights<columns>(text, column);
    constexpr int kVectors = V::kByteVectors;
    for (int64_t feature = 0; feature < plan_.padded_dim; feature += kVectors * V::kLanes) {
      pool_bytes<columns, kVectors>(text, column, feature, out);
    }
  }

  // The weights of some columns side by side, so that one pointer is enough: uint32 [pairs,
  // columns].
  template <int columns>
  void gather_weights(int64_t text, int64_t column) const {
    const int64_t num_pairs = (tokens_of(text) + 1) / 2;
    uint32_t *out = at<uint32_t>(plan_.tables);
    for (int c = 0; c < columns; ++c) {
      const uint32_t *weights = weights_of(text, column + c);
      for (int64_t pair = 0; pair < num_pairs; ++pair) {
        out[pair * columns + c] = weights[pair * kPanel];
      }
    }
  }

  template <int columns, int vectors>
  void pool_bytes(int64_t text, int64_t column, int64_t feature, int16_t *out) const {
    I32 sum[columns][vectors];
#pragma GCC unroll 16
    for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) sum[c][v] = V::zero();
    }
    const int64_t num_pairs = (tokens_of(text) + 1) / 2;
    const uint8_t *pairs = transposed(text) +
                           feature / kDepthMultiple * kDepthMultiple * 2 * num_pairs +
                           feature % kDepthMultiple * 2;
    const uint32_t *weights = at<uint32_t>(plan_.tables);
    for (int64_t pair = 0; pair < num_pairs; ++pair, pairs += 2 * kDepthMultiple) {
      I32 codes[vectors];
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) codes[v] = V::byte_pairs(pairs + 2 * v * V::kLanes);
#pragma GCC unroll 16
      for (int c = 0; c < columns; ++c) {
        const I32 weight = V::broadcast_at(weights + pair * columns + c);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) sum[c][v] = V::dot(sum[c][v], weight, codes[v]);
      }
    }
    const int64_t where = text * columns_ + column;
    const int32_t *half = at<int32_t>(plan_.half) + where;
    const int32_t *shift = at<int32_t>(plan_.shift) + where;
#pragma GCC unroll 16
    for (int c = 0; c < columns; ++c) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) {
        V::keep(sum[c][v]);  // in one register: GCC 12 would copy each sum in each round
        const I32 centered = V::sub_int(sum[c][v], V::broadcast(half[c]));
        V::store_int16(out + c * plan_.row_stride + feature + v * V::kLanes,
                       V::shift_right_by(centered, shift[c]));
      }
    }
  }

  const bh_predict_heads_args &args_;
  const PredictHeadsPlan &plan_;
  uint8_t *const base_;
  const uint8_t *rows_ = nullptr;  // of the block, [tokens, row_bytes]
  int64_t first_text_ = 0;
  int64_t texts_ = 0;    // of the block
  int64_t columns_ = 0;  // of the group, a multiple of 16
};

template <class V>
void run_predict_heads(const PredictHeadsCall &call) {
  if (call.args.quantization == BH_SIGN) {
    PredictHeads<V, true>(call).run();
  } else {
    PredictHeads<V, false>(call).run();
  }
}

// As many independent sums as hide the latency, from registers.
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
