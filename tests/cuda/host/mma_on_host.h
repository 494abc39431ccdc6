// mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 on the host, from the fragment tables of the
// PTX ISA, section "Matrix Fragments for mma.m16n8k16 with floating point type".
#ifndef BITHEADS_TESTS_MMA_ON_HOST_H
#define BITHEADS_TESTS_MMA_ON_HOST_H

#include "host_cuda.h"

namespace host_cuda {

struct MmaFragments {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};

inline const float *float_of_every_half() {
  static const std::vector<float> table = [] {
    std::vector<float> made(65536);
    for (unsigned bits = 0; bits < 65536; ++bits) {
      made[bits] = __half2float({static_cast<unsigned short>(bits)});
    }
    return made;
  }();
  return table.data();
}

// c plus eight exact products as tensor cores add them (Fasi, Higham, Mikaitis and Pranesh,
// "Numerical behavior of NVIDIA tensor cores", 2021): all nine are cut off at the last place of
// the largest, and so is the sum. The extra bits that newer ones keep are not counted on.
inline float add_truncating(float c, const double (&products)[8]) {
  double terms[9];
  memcpy(terms, products, sizeof products);
  terms[8] = static_cast<double>(c);
  double largest = 0;
  for (double term : terms) largest = fabs(term) > largest ? fabs(term) : largest;
  bool is_finite = largest < HUGE_VAL;
  for (double term : terms) is_finite = is_finite && !isnan(term);
  if (!is_finite || largest == 0) {
    double sum = 0;
    for (double term : terms) sum += term;
    return static_cast<float>(sum);
  }
  const int last_place = ilogb(largest) - 23;
  const double to_integer = ldexp(1.0, -last_place);
  int64_t sum = 0;
  for (double term : terms) sum += static_cast<int64_t>(term * to_integer);
  // Up to 2^28: cut to a float's 24 bits.
  const uint64_t magnitude = static_cast<uint64_t>(sum < 0 ? -sum : sum);
  int dropped = 0;
  while (magnitude >> dropped >= 1u << 24) ++dropped;
  const double kept = static_cast<double>(magnitude >> dropped << dropped);
  return static_cast<float>((sum < 0 ? -kept : kept) / to_integer);
}

inline void multiply_fragments(MmaFragments (&lanes)[kLanes]) {
  const float *const half = float_of_every_half();
  double a[16][16];  // [row][k]
  double b[16][8];   // [k][column]
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane >> 2;
    const int thread = lane % 4;
    for (int i = 0; i < 8; ++i) {  // the eight halves a0 ... a7
      const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
      const int k = thread * 2 + (i & 1) + (i < 4 ? 0 : 8);
      a[row][k] = static_cast<double>(half[lanes[lane].a[i / 2] >> 16 * (i % 2) & 0xFFFFu]);
    }
    for (int i = 0; i < 4; ++i) {  // the four halves b0 ... b3
      const int k = thread * 2 + (i & 1) + (i < 2 ? 0 : 8);
      b[k][group] = static_cast<double>(half[lanes[lane].b[i / 2] >> 16 * (i % 2) & 0xFFFFu]);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {  // the four floats c0 ... c3
      const int row = i < 2 ? lane >> 2 : (lane >> 2) + 8;
      const int column = lane % 4 * 2 + (i & 1);
      for (int first = 0; first < 16; first += 8) {
        double products[8];
        for (int k = 0; k < 8; ++k) products[k] = a[row][first + k] * b[first + k][column];
        lanes[lane].c[i] = add_truncating(lanes[lane].c[i], products);
      }
    }
  }
}

inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaFragments mine{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  mine = collective<MmaFragments, multiply_fragments>(0xFFFFFFFFu, mine);
  memcpy(c, mine.c, sizeof mine.c);
}

}  // namespace host_cuda

#endif
