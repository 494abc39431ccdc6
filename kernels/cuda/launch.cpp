// The host side of the CUDA kernels: arguments are checked, a launch is planned.
#include <cstring>

#include "bitheads/cuda.h"
#include "pool_and_pack_checks.h"
#include "pool_and_pack_launch.h"

namespace {

template <class Plan>
bh_cuda_launch to_launch(const Plan &plan) {
  static_assert(sizeof(plan.args) <= BH_CUDA_ARGS_BYTES);
  bh_cuda_launch launch{};
  launch.kernel = plan.kernel;
  std::memcpy(launch.grid, plan.grid, sizeof launch.grid);
  std::memcpy(launch.block, plan.block, sizeof launch.block);
  launch.args_bytes = sizeof plan.args;
  std::memcpy(launch.args, &plan.args, sizeof plan.args);
  return launch;
}

}  // namespace

extern "C" bh_status bh_cuda_plan_pool_and_pack(const bh_pool_and_pack_args *args,
                                                const int64_t *lengths,
                                                const int64_t *token_offsets,
                                                bh_cuda_launch *launch) {
  if (args == nullptr || launch == nullptr || !bitheads::arguments_are_valid(*args) ||
      !bitheads::rows_are_valid(*args, lengths, token_offsets)) {
    return BH_INVALID_ARGUMENT;
  }
  bitheads::cuda::PoolAndPackLaunch plan;
  const bh_status status = bitheads::cuda::plan_pool_and_pack(*args, &plan);
  if (status == BH_OK) *launch = to_launch(plan);
  return status;
}
