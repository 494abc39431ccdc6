// The shared library of tests/cuda: pool_and_pack.cu itself, planned and run on the host.
#include "../../../kernels/cuda/pool_and_pack.cu"
#include "../../../kernels/cuda/pool_and_pack_launch.h"

namespace {

using bitheads::cuda::PoolAndPackArgs;

struct NamedKernel {
  const char *name;
  void (*kernel)(const PoolAndPackArgs);
};

#define BH_NAMED_KERNEL(name, dtype, mode, weighted, path) {#name, name},
constexpr NamedKernel kKernels[] = {BH_POOL_AND_PACK_KERNELS(BH_NAMED_KERNEL)};
#undef BH_NAMED_KERNEL

}  // namespace

extern "C" {

// Runs the kernel that plan_pool_and_pack chooses. `kernel` gets its name (null if none is meant to
// run), `loaded_bytes` what its threads read, `error` (256 bytes) what went wrong in the grid.
int32_t run_pool_and_pack_on_host(const bh_pool_and_pack_args *args, const char **kernel,
                                  uint64_t *loaded_bytes, char *error) {
  bitheads::cuda::PoolAndPackLaunch launch;
  error[0] = '\0';
  const bh_status status = bitheads::cuda::plan_pool_and_pack(*args, &launch);
  if (status != BH_OK) return status;
  *kernel = launch.kernel;
  host_cuda_loaded_bytes = 0;
  for (const NamedKernel &entry : kKernels) {
    if (strcmp(entry.name, launch.kernel) != 0) continue;
    try {
      host_cuda::launch(entry.kernel, launch.args, launch.grid, launch.block);
    } catch (const std::exception &exception) {
      strncpy(error, exception.what(), 255);
      error[255] = '\0';
    }
  }
  *loaded_bytes = host_cuda_loaded_bytes;
  return BH_OK;
}

}  // extern "C"
