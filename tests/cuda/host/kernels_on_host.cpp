// The shared library of tests/cuda: the kernels' sources themselves, planned and run on the host.
#include "../../../kernels/cuda/bitheads.cu"
#include "../../../kernels/cuda/grouped_dense_launch.h"
#include "../../../kernels/cuda/grouped_dense_layout.h"
#include "../../../kernels/cuda/packed_attention_pool_launch.h"
#include "../../../kernels/cuda/packed_attention_pool_layout.h"
#include "../../../kernels/cuda/pool_and_pack_launch.h"
#include "../../../kernels/cuda/pool_positions_launch.h"
#include "shim_kernels.h"

namespace {

using host_cuda::Shape;

template <class Args>
Args args_of(void (*kernel)(Args));

// Every kernel takes one struct by value, so one function pointer type covers them all.
template <auto kernel>
void run(const void *args, const Shape &shape) {
  using Args = decltype(args_of(kernel));
  Args copy;  // as a driver copies it: the caller's bytes need no alignment
  memcpy(&copy, args, sizeof copy);
  host_cuda::launch(kernel, copy, shape);
}

template <auto kernel>
constexpr uint64_t kArgsBytes = sizeof(decltype(args_of(kernel)));

struct NamedKernel {
  const char *name;
  uint64_t args_bytes;
  void (*run)(const void *args, const Shape &shape);
};

#define BH_NAMED_KERNEL(name, ...) {#name, kArgsBytes<name>, run<name>},
constexpr NamedKernel kKernels[] = {BH_POOL_AND_PACK_KERNELS(BH_NAMED_KERNEL)   //
                                    BH_POOL_POSITIONS_KERNELS(BH_NAMED_KERNEL)  //
                                    BH_ATTENTION_POOL_KERNELS(BH_NAMED_KERNEL)  //
                                    BH_GROUPED_DENSE_KERNELS(BH_NAMED_KERNEL)   //
                                    BH_SHIM_KERNELS(BH_NAMED_KERNEL)};
#undef BH_NAMED_KERNEL

void copy_message(const char *message, char *error) {
  strncpy(error, message, 255);
  error[255] = '\0';
}

}  // namespace

extern "C" {

// Runs any kernel by name, as cuLaunchKernel does with the single argument `args`. 0, or 1 and what
// went wrong in `error` (256 bytes): an unknown name, threads that did not meet at a collective.
int run_kernel_on_host(const char *name, const void *args, const uint32_t grid[3],
                       const uint32_t block[3], uint32_t shared_bytes, char *error) {
  error[0] = '\0';
  for (const NamedKernel &kernel : kKernels) {
    if (strcmp(kernel.name, name) != 0) continue;
    try {
      kernel.run(args, {{grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes});
      return 0;
    } catch (const std::exception &exception) {
      copy_message(exception.what(), error);
      return 1;
    }
  }
  copy_message((std::string("no kernel has the name ") + name).c_str(), error);
  return 1;
}

// Bytes of the kernel's argument, 0 if there is no such kernel: what a driver reads from a module.
uint64_t kernel_args_bytes_on_host(const char *name) {
  for (const NamedKernel &kernel : kKernels) {
    if (strcmp(kernel.name, name) == 0) return kernel.args_bytes;
  }
  return 0;
}

// The launch of bh_pool_and_pack_args: its shape [grid, block], and its argument, which takes
// kernel_args_bytes_on_host(*kernel) bytes.
int32_t plan_pool_and_pack_on_host(const bh_pool_and_pack_args *args, const char **kernel,
                                   uint32_t shape[6], void *launch_args) {
  bitheads::cuda::PoolAndPackLaunch launch;
  const bh_status status = bitheads::cuda::plan_pool_and_pack(*args, &launch);
  if (status != BH_OK) return status;
  *kernel = launch.kernel;
  memcpy(shape, launch.grid, sizeof launch.grid);
  memcpy(shape + 3, launch.block, sizeof launch.block);
  memcpy(launch_args, &launch.args, sizeof launch.args);
  return BH_OK;
}

// The functions below plan a call and run what was planned. `kernel` gets its name, `error` (256
// bytes) what went wrong in the grid.

// `loaded_bytes` gets what the threads read.
int32_t run_pool_and_pack_on_host(const bh_pool_and_pack_args *args, const char **kernel,
                                  uint64_t *loaded_bytes, char *error) {
  bitheads::cuda::PoolAndPackLaunch launch;
  error[0] = '\0';
  const bh_status status = bitheads::cuda::plan_pool_and_pack(*args, &launch);
  if (status != BH_OK) return status;
  *kernel = launch.kernel;
  host_cuda_loaded_bytes = 0;
  run_kernel_on_host(launch.kernel, &launch.args, launch.grid, launch.block, 0, error);
  *loaded_bytes = host_cuda_loaded_bytes;
  return BH_OK;
}

int32_t run_pool_positions_on_host(const bh_pool_positions_args *call, const char **kernel,
                                   uint64_t *loaded_bytes, char *error) {
  bitheads::cuda::PoolPositionsLaunch launch;
  error[0] = '\0';
  const bh_status status = bitheads::cuda::plan_pool_positions(*call, call->lengths, &launch);
  if (status != BH_OK) return status;
  *kernel = launch.kernel;
  host_cuda_loaded_bytes = 0;
  run_kernel_on_host(launch.kernel, &launch.args, launch.grid, launch.block, 0, error);
  *loaded_bytes = host_cuda_loaded_bytes;
  return BH_OK;
}

int32_t run_attention_pool_on_host(const bh_attention_pool_args *call, const char **kernel,
                                   char *error) {
  bitheads::cuda::AttentionPoolLaunch launch;
  error[0] = '\0';
  const bh_status status = bitheads::cuda::plan_attention_pool(*call, &launch);
  if (status != BH_OK) return status;
  *kernel = launch.kernel;
  run_kernel_on_host(launch.kernel, &launch.args, launch.grid, launch.block, launch.shared_bytes,
                     error);
  return BH_OK;
}

int32_t run_grouped_dense_on_host(const bh_grouped_dense_args *call, const char **kernel,
                                  char *error) {
  bitheads::cuda::GroupedDenseLaunch launch;
  error[0] = '\0';
  const bh_status status = bitheads::cuda::plan_grouped_dense(*call, &launch);
  if (status != BH_OK) return status;
  *kernel = launch.kernel;
  run_kernel_on_host(launch.kernel, &launch.args, launch.grid, launch.block, launch.shared_bytes,
                     error);
  return BH_OK;
}

// The last thread first, as long as it is set (block.h).
void run_threads_in_reverse_on_host(int reverse) {
  host_cuda::run_in_reverse = reverse != 0;
}

int64_t attention_pool_queries_bytes_on_host(int64_t columns, int64_t dim, int32_t quantization) {
  return bitheads::cuda::attention_pool_queries_bytes(columns, dim,
                                                      static_cast<bh_quantization>(quantization));
}

int32_t lay_out_queries_on_host(const float *queries, int64_t columns, int64_t dim,
                                int32_t quantization, void *fragments, float *column_scale) {
  return bitheads::cuda::lay_out_queries(
      queries, columns, dim, static_cast<bh_quantization>(quantization), fragments, column_scale);
}

int64_t dense_row_halves_on_host(int64_t k) {
  return bitheads::cuda::dense_row_halves(k);
}

int32_t lay_out_dense_on_host(const float *weights, int64_t n, int64_t k, uint16_t *out,
                              float *scale) {
  return bitheads::cuda::lay_out_dense(weights, n, k, out, scale);
}

}  // extern "C"
