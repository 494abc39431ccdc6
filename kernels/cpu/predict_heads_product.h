// predict_heads: products of int16 matrices. Those of a chunk are summed in int32, chunks in
// float32.
#ifndef BITHEADS_CPU_PREDICT_HEADS_PRODUCT_H
#define BITHEADS_CPU_PREDICT_HEADS_PRODUCT_H

#include <stdint.h>

#include "head_layout.h"

namespace {

using bitheads::kChunk;
using bitheads::kPanelRows;
using bitheads::MatrixView;

constexpr int kPanel = static_cast<int>(kPanelRows);

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

enum class Sums { kStoreInt, kStoreFloat, kAddFloat };

// Rows of `a` by panels of `b`, into 16 columns per panel of `out`.
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

// Asks for what is needed soon, one cache line per step.
inline void prefetch(const int16_t *weights) {
  __builtin_prefetch(weights, 0, 2);
}

template <class V, int rows, int panels>
void multiply_tile(const TileArgs &args) {
  constexpr int kVectors = panels * kPanel / V::kLanes;
  typename V::I32 sum[rows][kVectors];
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[row][v] = V::zero();
  }
  if constexpr (V::kOwnSums) {
    V::sum_products(args, sum);
  } else {
    constexpr int64_t kAhead = 8 * 2 * kPanel;
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

}  // namespace

#endif
