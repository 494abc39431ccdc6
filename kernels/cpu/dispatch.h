// Which SIMD level runs: chosen once, handed out as a table of function pointers.
#ifndef BITHEADS_CPU_DISPATCH_H
#define BITHEADS_CPU_DISPATCH_H

#include "bitheads/kernels.h"
#include "lay_out_rows.h"
#include "predict_heads_plan.h"

namespace bitheads {

// One entry a kernel. Entries get arguments that are already checked.
struct KernelTable {
  void (*pool_and_pack)(const bh_pool_and_pack_args &args) noexcept;
  void (*predict_heads)(const PredictHeadsCall &call) noexcept;
  int64_t (*run_dot_products)(int64_t multiply_adds) noexcept;
  const LayOutLoops *lay_out;
};

// The table of `level`, where BH_LEVEL_ACTIVE means the one chosen at first use. Leaves `table`
// alone unless it returns BH_OK.
bh_status find_kernels(bh_level level, const KernelTable **table) noexcept;

// Defined by each level's own translation unit, compiled with that level's flags.
void pool_and_pack_serial(const bh_pool_and_pack_args &args) noexcept;
void pool_and_pack_avx2(const bh_pool_and_pack_args &args) noexcept;
void pool_and_pack_avx512(const bh_pool_and_pack_args &args) noexcept;

void predict_heads_serial(const PredictHeadsCall &call) noexcept;
void predict_heads_avx2(const PredictHeadsCall &call) noexcept;
void predict_heads_avx512(const PredictHeadsCall &call) noexcept;
void predict_heads_avx512_vnni(const PredictHeadsCall &call) noexcept;

int64_t run_dot_products_serial(int64_t multiply_adds) noexcept;
int64_t run_dot_products_avx2(int64_t multiply_adds) noexcept;
int64_t run_dot_products_avx512(int64_t multiply_adds) noexcept;
int64_t run_dot_products_avx512_vnni(int64_t multiply_adds) noexcept;

}  // namespace bitheads

#endif
