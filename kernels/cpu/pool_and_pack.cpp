// bh_pool_and_pack: every argument is checked here, once, so that the levels only compute.
#include "default_floating_point.h"
#include "dispatch.h"
#include "pool_and_pack_checks.h"

extern "C" {

int64_t bh_code_bytes(int64_t dim, bh_quantization quantization) {
  if (dim < 1 || dim > bitheads::kMaxDim) return -1;
  switch (quantization) {
    case BH_SIGN:
      return (dim + 7) / 8;
    case BH_UINT8:
      return dim;
    case BH_HALF:
      return 2 * dim;
  }
  return -1;
}

bh_status bh_pool_and_pack(const bh_pool_and_pack_args *args) {
  if (args == nullptr || !bitheads::arguments_are_valid(*args) ||
      !bitheads::rows_are_valid(*args, args->lengths, args->token_offsets)) {
    return BH_INVALID_ARGUMENT;
  }
  const bitheads::KernelTable *kernels = nullptr;
  const bh_status status = bitheads::find_kernels(args->level, &kernels);
  if (status != BH_OK) return status;
  const bitheads::DefaultFloatingPoint scope;
  kernels->pool_and_pack(*args);
  return BH_OK;
}

}  // extern "C"
