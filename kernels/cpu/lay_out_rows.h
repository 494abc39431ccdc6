// What laying out a head does to every weight, sixteen rows at a time: each level's part of it.
#ifndef BITHEADS_CPU_LAY_OUT_ROWS_H
#define BITHEADS_CPU_LAY_OUT_ROWS_H

#include "head_layout.h"

namespace bitheads {

// Some rows of a matrix; those from `count` up to kPanelRows are taken as zeros.
struct Rows {
  const float *weights;
  int64_t count;
  int64_t stride;  // floats from one row to the next
  int64_t depth;   // features of a row that are read
};

// Of each row; sums are of float64, features ascending.
struct RowSums {
  float largest[kPanelRows];         // max |w|, NaN above all
  double largest_chunk[kPanelRows];  // max over chunks of sum |w|
  double absolute[kPanelRows];       // sum |w|
  double plain[kPanelRows];          // sum w
};

// One entry per loop over weights.
struct LayOutLoops {
  void (*sum_rows)(const Rows &rows, RowSums &sums) noexcept;
  // w / step, rounded half to even, to [(depth + 1) / 2][kPanelRows][2]. Finite weights only, of at
  // most 32767 steps, all 0 where the step is.
  void (*quantize_rows)(const Rows &rows, const float *step, int16_t *out) noexcept;
  void (*floats_of_halves)(const uint16_t *halves, int64_t count, float *floats) noexcept;
};

}  // namespace bitheads

#endif
