// The host side of the CUDA kernels: arguments are checked, a launch is planned.
#include <cstring>

#include "bitheads/cuda.h"
#include "grouped_dense_launch.h"
#include "grouped_dense_layout.h"
#include "packed_attention_pool_launch.h"
#include "packed_attention_pool_layout.h"
#include "pool_and_pack_checks.h"
#include "pool_and_pack_launch.h"
#include "pool_positions_launch.h"

namespace {

template <class Plan>
bh_cuda_launch to_launch(const Plan &plan) {
  static_assert(sizeof(plan.args) <= BH_CUDA_ARGS_BYTES);
  bh_cuda_launch launch{};
  launch.kernel = plan.kernel;
  std::memcpy(launch.grid, plan.grid, sizeof launch.grid);
  std::memcpy(launch.block, plan.block, sizeof launch.block);
  launch.shared_bytes = plan.shared_bytes;
  launch.args_bytes = sizeof plan.args;
  std::memcpy(launch.args, &plan.args, sizeof plan.args);
  return launch;
}

bool is_quantization(bh_quantization quantization) {
  return quantization == BH_SIGN || quantization == BH_UINT8 || quantization == BH_HALF;
}

}  // namespace

extern "C" {

bh_status bh_cuda_plan_pool_and_pack(const bh_pool_and_pack_args *args, const int64_t *lengths,
                                     const int64_t *token_offsets, bh_cuda_launch *launch) {
  if (args == nullptr || launch == nullptr || !bitheads::arguments_are_valid(*args) ||
      !bitheads::rows_are_valid(*args, lengths, token_offsets)) {
    return BH_INVALID_ARGUMENT;
  }
  bitheads::cuda::PoolAndPackLaunch plan;
  const bh_status status = bitheads::cuda::plan_pool_and_pack(*args, &plan);
  if (status == BH_OK) *launch = to_launch(plan);
  return status;
}

bh_status bh_cuda_plan_pool_positions(const bh_pool_positions_args *args, const int64_t *lengths,
                                      bh_cuda_launch *launch) {
  if (args == nullptr || launch == nullptr) return BH_INVALID_ARGUMENT;
  bitheads::cuda::PoolPositionsLaunch plan;
  const bh_status status = bitheads::cuda::plan_pool_positions(*args, lengths, &plan);
  if (status == BH_OK) *launch = to_launch(plan);
  return status;
}

int64_t bh_cuda_pooled_dim(int64_t dim) {
  return dim < 1 ? -1 : bitheads::cuda::pooled_dim(dim);
}

int64_t bh_cuda_dense_row(int64_t k) {
  return k < 1 ? -1 : bitheads::cuda::dense_row_halves(k);
}

int64_t bh_cuda_query_bytes(int64_t columns, int64_t dim, bh_quantization quantization) {
  if (columns < 0 || dim < 1 || !is_quantization(quantization)) return -1;
  return bitheads::cuda::attention_pool_queries_bytes(columns, dim, quantization);
}

bh_status bh_cuda_lay_out_queries(const float *queries, int64_t columns, int64_t dim,
                                  bh_quantization quantization, void *fragments,
                                  float *column_scale) {
  if (bh_cuda_query_bytes(columns, dim, quantization) < 0) return BH_INVALID_ARGUMENT;
  if (columns == 0) return BH_OK;
  if (queries == nullptr || fragments == nullptr || column_scale == nullptr) {
    return BH_INVALID_ARGUMENT;
  }
  return bitheads::cuda::lay_out_queries(queries, columns, dim, quantization, fragments,
                                         column_scale);
}

bh_status bh_cuda_lay_out_dense(const float *weights, int64_t n, int64_t k, void *laid_out,
                                float *scale) {
  if (n < 1 || k < 1 || weights == nullptr || laid_out == nullptr || scale == nullptr) {
    return BH_INVALID_ARGUMENT;
  }
  return bitheads::cuda::lay_out_dense(weights, n, k, static_cast<uint16_t *>(laid_out), scale);
}

bh_status bh_cuda_plan_attention_pool(const bh_attention_pool_args *args, bh_cuda_launch *launch) {
  if (args == nullptr || launch == nullptr) return BH_INVALID_ARGUMENT;
  bitheads::cuda::AttentionPoolLaunch plan;
  const bh_status status = bitheads::cuda::plan_attention_pool(*args, &plan);
  if (status == BH_OK) *launch = to_launch(plan);
  return status;
}

bh_status bh_cuda_plan_grouped_dense(const bh_grouped_dense_args *args, bh_cuda_launch *launch) {
  if (args == nullptr || launch == nullptr) return BH_INVALID_ARGUMENT;
  bitheads::cuda::GroupedDenseLaunch plan;
  const bh_status status = bitheads::cuda::plan_grouped_dense(*args, &plan);
  if (status == BH_OK) *launch = to_launch(plan);
  return status;
}

}  // extern "C"
