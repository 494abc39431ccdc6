// From a call of grouped_dense to a kernel's name, grid and argument. Host code without CUDA, so
// that it is tested on any machine.
#ifndef BITHEADS_CUDA_GROUPED_DENSE_LAUNCH_H
#define BITHEADS_CUDA_GROUPED_DENSE_LAUNCH_H

#include "bitheads/cuda.h"
#include "grouped_dense_args.h"

namespace bitheads::cuda {

struct GroupedDenseLaunch {
  const char *kernel;
  uint32_t grid[3];  // with a zero in it there is nothing to launch
  uint32_t block[3];
  uint32_t shared_bytes;
  GroupedDenseArgs args;
};

// BH_INVALID_ARGUMENT beyond what one launch can do: see SPEC.md.
inline bh_status plan_grouped_dense(const bh_grouped_dense_args &call, GroupedDenseLaunch *launch) {
  constexpr int64_t kMaxGridX = 2147483647;
  constexpr int64_t kMaxGridYZ = 65535;
  if (call.num_groups < 0 || call.num_groups > kMaxGridYZ || call.texts < 0 ||
      call.texts > kMaxGridYZ * kDenseTexts || call.largest_n < 0 || call.largest_n > kMaxGridX) {
    return BH_INVALID_ARGUMENT;
  }
  *launch = GroupedDenseLaunch{};
#define BH_TAKE_IF_WANTED(name, its_kind) \
  if (call.kind == its_kind) launch->kernel = #name;
  BH_GROUPED_DENSE_KERNELS(BH_TAKE_IF_WANTED)
#undef BH_TAKE_IF_WANTED
  if (launch->kernel == nullptr) return BH_INVALID_ARGUMENT;
  launch->grid[0] = static_cast<uint32_t>(ceil_div(call.largest_n, kDenseOutputs));
  launch->grid[1] = static_cast<uint32_t>(ceil_div(call.texts, kDenseTexts));
  launch->grid[2] = static_cast<uint32_t>(call.num_groups);
  launch->block[0] = kDenseThreads;
  launch->block[1] = 1;
  launch->block[2] = 1;
  launch->args.groups = call.groups;
  launch->args.texts = call.texts;
  return BH_OK;
}

}  // namespace bitheads::cuda

#endif
