// Which SIMD level runs: chosen once, handed out as a table of function pointers.
#ifndef BITHEADS_CPU_DISPATCH_H
#define BITHEADS_CPU_DISPATCH_H

#include "bitheads/kernels.h"

namespace bitheads {

// One entry a kernel. Entries get arguments that are already checked.
struct KernelTable {
  void (*pool_and_pack)(const bh_pool_and_pack_args &args) noexcept;
};

// The table of `level`, where BH_LEVEL_ACTIVE means the one chosen at first use. Leaves `table`
// alone unless it returns BH_OK.
bh_status find_kernels(bh_level level, const KernelTable **table) noexcept;

// Defined by each level's own translation unit, compiled with that level's flags.
void pool_and_pack_serial(const bh_pool_and_pack_args &args) noexcept;
void pool_and_pack_avx2(const bh_pool_and_pack_args &args) noexcept;
void pool_and_pack_avx512(const bh_pool_and_pack_args &args) noexcept;

}  // namespace bitheads

#endif
