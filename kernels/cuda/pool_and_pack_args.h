// What host and device share about pool_and_pack: its argument, its launch shape, its kernels.
#ifndef BITHEADS_CUDA_POOL_AND_PACK_ARGS_H
#define BITHEADS_CUDA_POOL_AND_PACK_ARGS_H

#include "bitheads/kernels.h"

namespace bitheads::cuda {

// The layers travel inside the argument, so a launch needs no copy to the device, and reading them
// costs no trip to memory: arguments lie in the constant bank. 64 of them are 1.5 of its 4 KiB.
constexpr int kMaxLayers = 64;

// A warp computes a block of features of one token; a thread block is four warps, hence four
// tokens. Small blocks start and end alone: a padded token holds up three others at most.
constexpr int kWarpLanes = 32;
constexpr int kWarpsPerBlock = 4;

// Passed by value. All pointers are the device's. The sizes that are not here are the grid's: x is
// ceil(seq / kWarpsPerBlock), y is the blocks of features, z is rows.
struct PoolAndPackArgs {
  bh_layer layers[kMaxLayers];      // the first num_layers of them
  float layer_weights[kMaxLayers];  // read by the weighted kernels
  const int64_t *lengths;           // [rows]
  const int64_t *token_offsets;     // [rows]
  const float *thresholds;          // [dim] or null: 0
  const float *inverse_scale;       // [dim], uint8 kernels
  const float *zero_point;          // [dim], uint8 kernels
  uint8_t *codes;
  int32_t num_layers;
  int32_t dim;
};

enum class Mode { kSign, kVote, kUint8, kHalf };

// The vector kernels load 16 bytes per thread, which asks for alignment (see plan_pool_and_pack in
// pool_and_pack_launch.h); the scalar ones take one feature per thread, from any address.
enum class Path { kVector, kScalar };

// Features that one thread computes.
constexpr int lane_features(bh_dtype dtype, Path path) {
  return path == Path::kScalar ? 1 : dtype == BH_FLOAT32 ? 4 : 8;
}

}  // namespace bitheads::cuda

// Every kernel, as X(name, dtype, mode, weighted, path). A vote takes no weights.
#define BH_POOL_AND_PACK_PATHS(X, name, dtype, mode, weighted)             \
  X(name##_vector, dtype, mode, weighted, ::bitheads::cuda::Path::kVector) \
  X(name##_scalar, dtype, mode, weighted, ::bitheads::cuda::Path::kScalar)
#define BH_POOL_AND_PACK_MODES(X, name, dtype)                                                  \
  BH_POOL_AND_PACK_PATHS(X, name##_sign, dtype, ::bitheads::cuda::Mode::kSign, false)           \
  BH_POOL_AND_PACK_PATHS(X, name##_sign_weighted, dtype, ::bitheads::cuda::Mode::kSign, true)   \
  BH_POOL_AND_PACK_PATHS(X, name##_vote, dtype, ::bitheads::cuda::Mode::kVote, false)           \
  BH_POOL_AND_PACK_PATHS(X, name##_uint8, dtype, ::bitheads::cuda::Mode::kUint8, false)         \
  BH_POOL_AND_PACK_PATHS(X, name##_uint8_weighted, dtype, ::bitheads::cuda::Mode::kUint8, true) \
  BH_POOL_AND_PACK_PATHS(X, name##_half, dtype, ::bitheads::cuda::Mode::kHalf, false)           \
  BH_POOL_AND_PACK_PATHS(X, name##_half_weighted, dtype, ::bitheads::cuda::Mode::kHalf, true)
#define BH_POOL_AND_PACK_KERNELS(X)                            \
  BH_POOL_AND_PACK_MODES(X, pool_and_pack_float32, BH_FLOAT32) \
  BH_POOL_AND_PACK_MODES(X, pool_and_pack_float16, BH_FLOAT16) \
  BH_POOL_AND_PACK_MODES(X, pool_and_pack_bfloat16, BH_BFLOAT16)

#endif
