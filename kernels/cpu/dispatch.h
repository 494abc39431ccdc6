// Which SIMD level runs: chosen once, handed out as a table of function pointers.
#ifndef BITHEADS_CPU_DISPATCH_H
#define BITHEADS_CPU_DISPATCH_H

#include "bitheads/kernels.h"
#include "lay_out_rows.h"
#include "predict_heads_plan.h"

namespace bitheads {

// One entry per kernel. Entries get arguments that are already checked.
struct KernelTable {
  void (*pool_and_pack)(const bh_pool_and_pack_args &args) noexcept;
  void (*predict_heads)(const PredictHeadsCall &call) noexcept;
  int64_t (*run_dot_products)(int64_t multiply_adds) noexcept;
  const LayOutLoops *lay_out;
};

// The table of `level`, where BH_LEVEL_ACTIVE means the one chosen at first use. Leaves `table`
// alone unless it returns BH_OK.
bh_status find_kernels(bh_level level, const KernelTable **table) noexcept;

// Defined by the levels' own translation units, compiled with their flags. A level whose kernel is
// another one's defines none; dispatch.cpp names those that are used.
#define BITHEADS_DECLARE_LEVEL(NAME, name, value)                        \
  void pool_and_pack_##name(const bh_pool_and_pack_args &args) noexcept; \
  void predict_heads_##name(const PredictHeadsCall &call) noexcept;      \
  int64_t run_dot_products_##name(int64_t multiply_adds) noexcept;       \
  extern const LayOutLoops lay_out_##name;
BH_FOR_EACH_LEVEL(BITHEADS_DECLARE_LEVEL)
#undef BITHEADS_DECLARE_LEVEL

}  // namespace bitheads

#endif
