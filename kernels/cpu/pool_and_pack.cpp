// bh_pool_and_pack: every argument is checked here, once, so that the levels only compute.
#include <cfenv>

#include "dispatch.h"

namespace {

// float(num_layers) and the vote counts, kept as floats, are exact up to here.
constexpr int64_t kMaxLayers = int64_t{1} << 24;
constexpr int64_t kMaxDim = int64_t{1} << 32;

// The codes must not depend on what a host left in the thread's floating-point mode: libraries
// built with fast-math turn subnormals off for the whole thread, some hosts change the rounding.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() noexcept {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&saved_); }
  DefaultFloatingPoint(const DefaultFloatingPoint &) = delete;
  DefaultFloatingPoint &operator=(const DefaultFloatingPoint &) = delete;

 private:
  std::fenv_t saved_;
};

bool sizes_are_valid(const bh_pool_and_pack_args &args) noexcept {
  return args.num_layers >= 1 && args.num_layers <= kMaxLayers && args.dim >= 1 &&
         args.dim <= kMaxDim && args.rows >= 0 && args.seq >= 0 && args.num_tokens >= 0;
}

bool options_are_valid(const bh_pool_and_pack_args &args) noexcept {
  if (args.dtype != BH_FLOAT32 && args.dtype != BH_FLOAT16 && args.dtype != BH_BFLOAT16) {
    return false;
  }
  const bool is_sign = args.quantization == BH_SIGN;
  const bool is_uint8 = args.quantization == BH_UINT8;
  if (!is_sign && !is_uint8 && args.quantization != BH_HALF) return false;
  if (args.order == BH_SIGN_THEN_VOTE) {
    if (!is_sign || args.layer_weights != nullptr) return false;
  } else if (args.order != BH_POOL_THEN_SIGN) {
    return false;
  }
  if (args.thresholds != nullptr && !is_sign) return false;
  return (args.inverse_scale != nullptr) == is_uint8 && (args.zero_point != nullptr) == is_uint8;
}

bool pointers_are_valid(const bh_pool_and_pack_args &args) noexcept {
  if (args.layers == nullptr) return false;
  if (args.codes == nullptr && args.num_tokens > 0) return false;
  if (args.rows == 0) return true;
  if (args.lengths == nullptr || args.token_offsets == nullptr) return false;
  if (args.seq == 0) return true;
  for (int64_t i = 0; i < args.num_layers; ++i) {
    if (args.layers[i].data == nullptr) return false;
  }
  return true;
}

bool rows_are_valid(const bh_pool_and_pack_args &args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t length = args.lengths[row];
    const int64_t first_token = args.token_offsets[row];
    if (length < 0 || length > args.seq || length > args.num_tokens) return false;
    if (first_token < 0 || first_token > args.num_tokens - length) return false;
  }
  return true;
}

}  // namespace

extern "C" {

int64_t bh_code_bytes(int64_t dim, bh_quantization quantization) {
  if (dim < 1 || dim > kMaxDim) return -1;
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
  if (args == nullptr || !sizes_are_valid(*args) || !options_are_valid(*args) ||
      !pointers_are_valid(*args) || !rows_are_valid(*args)) {
    return BH_INVALID_ARGUMENT;
  }
  const bitheads::KernelTable *kernels = nullptr;
  const bh_status status = bitheads::find_kernels(args->level, &kernels);
  if (status != BH_OK) return status;
  const DefaultFloatingPoint scope;
  kernels->pool_and_pack(*args);
  return BH_OK;
}

}  // extern "C"
