// From a call of packed_attention_pool to a kernel's name, grid and argument. Host code without
// CUDA, so that it is tested on any machine.
#ifndef BITHEADS_CUDA_PACKED_ATTENTION_POOL_LAUNCH_H
#define BITHEADS_CUDA_PACKED_ATTENTION_POOL_LAUNCH_H

#include "bitheads/cuda.h"
#include "packed_attention_pool_args.h"

namespace bitheads::cuda {

struct AttentionPoolLaunch {
  const char *kernel;
  uint32_t grid[3];  // with a zero in it there is nothing to launch
  uint32_t block[3];
  uint32_t shared_bytes;
  AttentionPoolArgs args;
};

// A pooled row: dim rounded up to 32 features, the last ones zeros.
constexpr int64_t pooled_dim(int64_t dim) {
  return round_up(dim, kUnitDim);
}

// BH_INVALID_ARGUMENT for unaligned pointers and beyond what one launch can do: see SPEC.md.
inline bh_status plan_attention_pool(const bh_attention_pool_args &call,
                                     AttentionPoolLaunch *launch) {
  constexpr int64_t kMaxGridX = 2147483647;
  constexpr int64_t kMaxGridYZ = 65535;
  if (call.texts < 0 || call.texts > kMaxGridX || call.columns < 0 ||
      call.columns > kMaxGridYZ * kGroupColumns || call.dim < 1 ||
      call.dim > kMaxGridYZ * kSliceDim) {
    return BH_INVALID_ARGUMENT;
  }
  const uintptr_t addresses =
      reinterpret_cast<uintptr_t>(call.queries) | reinterpret_cast<uintptr_t>(call.pooled);
  if (addresses % 16 != 0) return BH_INVALID_ARGUMENT;

  *launch = AttentionPoolLaunch{};
#define BH_TAKE_IF_WANTED(name, its_quantization) \
  if (call.quantization == its_quantization) launch->kernel = #name;
  BH_ATTENTION_POOL_KERNELS(BH_TAKE_IF_WANTED)
#undef BH_TAKE_IF_WANTED
  if (launch->kernel == nullptr) return BH_INVALID_ARGUMENT;
  // Texts first: the blocks of a group run together and find its queries in the cache.
  launch->grid[0] = static_cast<uint32_t>(call.texts);
  launch->grid[1] = static_cast<uint32_t>(ceil_div(call.columns, kGroupColumns));
  launch->grid[2] = static_cast<uint32_t>(ceil_div(call.dim, kSliceDim));
  launch->block[0] = kPoolThreads;
  launch->block[1] = 1;
  launch->block[2] = 1;

  AttentionPoolArgs &args = launch->args;
  args.codes = call.codes;
  args.offsets = call.offsets;
  args.queries = static_cast<const uint8_t *>(call.queries);
  args.column_scale = call.column_scale;
  args.end_bias = call.end_bias;
  args.pooled = static_cast<uint16_t *>(call.pooled);
  args.code_bytes = call.quantization == BH_SIGN    ? (call.dim + 7) / 8
                    : call.quantization == BH_UINT8 ? call.dim
                                                    : 2 * call.dim;
  args.columns = static_cast<int32_t>(call.columns);
  args.dim = static_cast<int32_t>(call.dim);
  args.dim_padded = static_cast<int32_t>(pooled_dim(call.dim));
  args.codes_are_aligned =
      reinterpret_cast<uintptr_t>(call.codes) % 16 == 0 && args.code_bytes % 16 == 0;
  return BH_OK;
}

}  // namespace bitheads::cuda

#endif
