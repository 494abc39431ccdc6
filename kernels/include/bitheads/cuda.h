/* bitheads CUDA kernels: the C ABI of their host side.
 *
 * Nothing here needs CUDA, a driver or a GPU: a function of this header turns the arguments of one
 * operation into a launch, and the host hands that to the driver (cuModuleGetFunction and
 * cuLaunchKernel, with `args` as the kernel's single argument). The device code is one fat binary,
 * made by `python -m export.device_code`. The rules of kernels.h hold here, too.
 */
#ifndef BITHEADS_CUDA_H
#define BITHEADS_CUDA_H

#include "bitheads/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BH_CUDA_ARGS_BYTES 2048

typedef struct bh_cuda_launch {
  const char *kernel; /* its name in the device code; static storage */
  uint32_t grid[3];   /* with a zero in it there is nothing to launch */
  uint32_t block[3];
  uint32_t
      shared_bytes; /* dynamic shared memory a block; beyond 48 KiB the function must be told */
  uint32_t args_bytes;
  unsigned char args[BH_CUDA_ARGS_BYTES]; /* the kernel's one argument, passed by value */
} bh_cuda_launch;

/* Plans bh_pool_and_pack for the device. `args->layers` and `args->layer_weights` are read here;
 * everything they and the other pointers lead to is device memory and is not touched. `lengths` and
 * `token_offsets` are the host's copies of what args->lengths and args->token_offsets hold: they
 * are checked as bh_pool_and_pack checks them, for the device checks nothing. args->level is
 * ignored. BH_INVALID_ARGUMENT as bh_pool_and_pack gives it, and beyond what one launch can do
 * (SPEC.md, CUDA). */
bh_status bh_cuda_plan_pool_and_pack(const bh_pool_and_pack_args *args, const int64_t *lengths,
                                     const int64_t *token_offsets, bh_cuda_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
