// From the arguments of bh_pool_and_pack to a kernel's name, grid and argument. Host code without
// CUDA, so that it is tested on any machine.
#ifndef BITHEADS_CUDA_POOL_AND_PACK_LAUNCH_H
#define BITHEADS_CUDA_POOL_AND_PACK_LAUNCH_H

#include "pool_and_pack_args.h"

namespace bitheads::cuda {

struct PoolAndPackLaunch {
  const char *kernel;
  uint32_t grid[3];  // with a zero in it there is nothing to launch
  uint32_t block[3];
  uint32_t shared_bytes;
  PoolAndPackArgs args;
};

inline Mode mode_of(const bh_pool_and_pack_args &args) {
  if (args.quantization == BH_UINT8) return Mode::kUint8;
  if (args.quantization == BH_HALF) return Mode::kHalf;
  return args.order == BH_SIGN_THEN_VOTE ? Mode::kVote : Mode::kSign;
}

// Whether every 16-byte load and every store of the vector kernels would be aligned and inside its
// array. Tensors of a usual encoder always are: their allocations start at multiples of 256 and
// their dims are multiples of 64.
inline bool fits_vector_path(const bh_pool_and_pack_args &args) {
  constexpr uintptr_t kAlignment = 16;
  uintptr_t addresses = reinterpret_cast<uintptr_t>(args.thresholds) |
                        reinterpret_cast<uintptr_t>(args.inverse_scale) |
                        reinterpret_cast<uintptr_t>(args.zero_point);
  // Signs are stored byte by byte.
  if (args.quantization != BH_SIGN) addresses |= reinterpret_cast<uintptr_t>(args.codes);
  for (int64_t i = 0; i < args.num_layers; ++i) {
    const bh_layer &layer = args.layers[i];
    addresses |= reinterpret_cast<uintptr_t>(layer.data) |
                 static_cast<uintptr_t>(layer.row_stride_bytes) |
                 static_cast<uintptr_t>(layer.token_stride_bytes);
  }
  return addresses % kAlignment == 0 && args.dim % 8 == 0;
}

inline const char *kernel_name(bh_dtype dtype, Mode mode, bool weighted, Path path) {
#define BH_RETURN_IF_WANTED(name, its_dtype, its_mode, its_weighted, its_path)                  \
  if (dtype == its_dtype && mode == its_mode && weighted == its_weighted && path == its_path) { \
    return #name;                                                                               \
  }
  BH_POOL_AND_PACK_KERNELS(BH_RETURN_IF_WANTED)
#undef BH_RETURN_IF_WANTED
  return nullptr;
}

// `args` has been checked as bh_pool_and_pack does it, before its data went to the device: here
// `layers` and `layer_weights` are the host's, everything they and the others point to is the
// device's and is not read. BH_INVALID_ARGUMENT beyond what one launch can do: see SPEC.md.
inline bh_status plan_pool_and_pack(const bh_pool_and_pack_args &args, PoolAndPackLaunch *launch) {
  constexpr int64_t kMaxGridX = 2147483647;
  constexpr int64_t kMaxGridYZ = 65535;
  if (args.num_layers > kMaxLayers || args.rows > kMaxGridYZ) return BH_INVALID_ARGUMENT;
  // The scalar path's limit for both: what is accepted must not depend on alignment.
  if (args.dim > kMaxGridYZ * kWarpLanes) return BH_INVALID_ARGUMENT;
  const int64_t token_blocks = args.seq / kWarpsPerBlock + (args.seq % kWarpsPerBlock == 0 ? 0 : 1);
  if (token_blocks > kMaxGridX) return BH_INVALID_ARGUMENT;

  const Path path = fits_vector_path(args) ? Path::kVector : Path::kScalar;
  const bool weighted = args.layer_weights != nullptr;
  *launch = PoolAndPackLaunch{};
  launch->kernel = kernel_name(args.dtype, mode_of(args), weighted, path);
  if (launch->kernel == nullptr) return BH_INVALID_ARGUMENT;
  const int64_t block_features = int64_t{kWarpLanes} * lane_features(args.dtype, path);
  launch->grid[0] = static_cast<uint32_t>(token_blocks);
  launch->grid[1] = static_cast<uint32_t>((args.dim + block_features - 1) / block_features);
  launch->grid[2] = static_cast<uint32_t>(args.rows);
  launch->block[0] = kWarpLanes;
  launch->block[1] = kWarpsPerBlock;
  launch->block[2] = 1;

  PoolAndPackArgs &device = launch->args;
  for (int64_t i = 0; i < args.num_layers; ++i) {
    device.layers[i] = args.layers[i];
    if (weighted) device.layer_weights[i] = args.layer_weights[i];
  }
  device.lengths = args.lengths;
  device.token_offsets = args.token_offsets;
  device.thresholds = args.thresholds;
  device.inverse_scale = args.inverse_scale;
  device.zero_point = args.zero_point;
  device.codes = args.codes;
  device.num_layers = static_cast<int32_t>(args.num_layers);
  device.dim = static_cast<int32_t>(args.dim);
  return BH_OK;
}

}  // namespace bitheads::cuda

#endif
