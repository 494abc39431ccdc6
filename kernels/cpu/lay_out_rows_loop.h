// The loops of lay_out_rows.h, plain: sixteen rows are the lanes that each level's compiler flags
// make vectors of. A lane sums its row in order, so all levels get the same bits.
#ifndef BITHEADS_CPU_LAY_OUT_ROWS_LOOP_H
#define BITHEADS_CPU_LAY_OUT_ROWS_LOOP_H

#include <cmath>
#include <cstring>

#include "half_bits.h"
#include "lay_out_rows.h"

namespace bitheads {
namespace {  // each level's own

// Two features of each row side by side, as in a panel: [pairs][kPanelRows][2].
constexpr int64_t kPairFloats = 2 * kPanelRows;

struct Tile {
  alignas(64) float weights[kChunk / 2 * kPairFloats];
  int64_t pairs;
};

// Features `first` and on, a chunk at most. An odd last one gets 0 for a partner.
void gather(const Rows &rows, int64_t first, Tile &tile) noexcept {
  static constexpr float kZeros[kChunk] = {};
  const int64_t count = rows.depth - first < kChunk ? rows.depth - first : kChunk;
  const float *starts[kPanelRows];
  for (int64_t row = 0; row < kPanelRows; ++row) {
    starts[row] = row < rows.count ? rows.weights + row * rows.stride + first : kZeros;
  }
  float *out = tile.weights;
  for (int64_t j = 0; j + 1 < count; j += 2, out += kPairFloats) {
    for (int64_t row = 0; row < kPanelRows; ++row) {
      std::memcpy(out + 2 * row, starts[row] + j, 2 * sizeof(float));
    }
  }
  if (count % 2 != 0) {
    for (int64_t row = 0; row < kPanelRows; ++row) {
      out[2 * row] = starts[row][count - 1];
      out[2 * row + 1] = 0;
    }
  }
  tile.pairs = (count + 1) / 2;
}

void sum_tile(const Tile &tile, RowSums &sums) noexcept {
  uint32_t largest[kPanelRows];  // magnitudes of floats are in the order of their bits
  double chunk[kPanelRows] = {};
  double absolute[kPanelRows];
  double plain[kPanelRows];
  std::memcpy(largest, sums.largest, sizeof largest);
  std::memcpy(absolute, sums.absolute, sizeof absolute);
  std::memcpy(plain, sums.plain, sizeof plain);
  for (int64_t pair = 0; pair < tile.pairs; ++pair) {
    const float *weights = tile.weights + pair * kPairFloats;
    for (int64_t row = 0; row < kPanelRows; ++row) {
      // Both at once, as one integer: compilers make better vectors of it.
      uint64_t both;
      std::memcpy(&both, weights + 2 * row, sizeof both);
      const uint32_t first_bits = static_cast<uint32_t>(both);
      const uint32_t second_bits = static_cast<uint32_t>(both >> 32);
      const double first = float_of_bits(first_bits);
      const double second = float_of_bits(second_bits);
      chunk[row] = (chunk[row] + std::fabs(first)) + std::fabs(second);
      absolute[row] = (absolute[row] + std::fabs(first)) + std::fabs(second);
      plain[row] = (plain[row] + first) + second;
      const uint32_t first_size = first_bits & 0x7FFFFFFF;
      const uint32_t second_size = second_bits & 0x7FFFFFFF;
      const uint32_t larger = first_size > second_size ? first_size : second_size;
      largest[row] = larger > largest[row] ? larger : largest[row];
    }
  }
  std::memcpy(sums.largest, largest, sizeof largest);
  std::memcpy(sums.absolute, absolute, sizeof absolute);
  std::memcpy(sums.plain, plain, sizeof plain);
  for (int64_t row = 0; row < kPanelRows; ++row) {
    const bool is_larger = chunk[row] > sums.largest_chunk[row];
    sums.largest_chunk[row] = is_larger ? chunk[row] : sums.largest_chunk[row];
  }
}

void sum_rows(const Rows &rows, RowSums &sums) noexcept {
  sums = {};
  Tile tile;
  for (int64_t first = 0; first < rows.depth; first += kChunk) {
    gather(rows, first, tile);
    sum_tile(tile, sums);
  }
}

// A quotient is exactly halfway between two integers, or at least 2^-26 off: weight and step have
// 24 bits. So a product with 1 / step, off by less than 2^-36, is right once it is rounded to a
// multiple of 2^-30, which takes it to halfway where the quotient is.
void quantize_rows(const Rows &rows, const float *step, int16_t *out) noexcept {
  // What is added leaves no smaller bits.
  constexpr double kToMultiple = 6291456;          // 1.5 * 2^22
  constexpr double kToInteger = 6755399441055744;  // 1.5 * 2^52
  double inverse[kPairFloats];
  for (int64_t row = 0; row < kPanelRows; ++row) {
    inverse[2 * row] = step[row] == 0 ? 0 : 1 / static_cast<double>(step[row]);
    inverse[2 * row + 1] = inverse[2 * row];
  }
  Tile tile;
  for (int64_t first = 0; first < rows.depth; first += kChunk) {
    gather(rows, first, tile);
    const float *weights = tile.weights;
    for (int64_t pair = 0; pair < tile.pairs; ++pair) {
      for (int64_t i = 0; i < kPairFloats; ++i) {
        double quotient = static_cast<double>(weights[i]) * inverse[i];
        quotient = (quotient + kToMultiple) - kToMultiple;
        quotient = (quotient + kToInteger) - kToInteger;
        out[i] = static_cast<int16_t>(static_cast<int32_t>(quotient));
      }
      weights += kPairFloats;
      out += kPairFloats;
    }
  }
}

void floats_of_halves(const uint16_t *halves, int64_t count, float *floats) noexcept {
  for (int64_t i = 0; i < count; ++i) floats[i] = float_of_half(halves[i]);
}

constexpr LayOutLoops kLoops = {sum_rows, quantize_rows, floats_of_halves};

}  // namespace
}  // namespace bitheads

#endif
