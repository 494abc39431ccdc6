// Level detection, the environment variable, and the table of levels.
//
// To add a level: a row of BH_FOR_EACH_LEVEL (kernels.h), what has it and what it runs here, its
// translation units and their flags (CMakeLists.txt), and what it needs (SPEC.md, Levels).
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

#if defined(BITHEADS_ARM_LEVELS)
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace bitheads {
namespace {

bool always() noexcept {
  return true;
}

#if defined(BITHEADS_X86_LEVELS)
// __builtin_cpu_supports also asks the operating system (xgetbv) whether it saves the registers.
bool has_avx2() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
}

#if defined(BITHEADS_AVX2_VNNI)
bool has_avx2_vnni() noexcept {
#if defined(BITHEADS_VNNI_OF_AVX512)
  return has_avx2() && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#else
  return has_avx2() && __builtin_cpu_supports("avxvnni");
#endif
}
#endif

bool has_avx512() noexcept {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_vnni() noexcept {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#endif

#if defined(BITHEADS_ARM_LEVELS)
bool has_neon() noexcept {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
#else
  return true;  // other systems run only on processors that have it
#endif
}

bool has_neon_dotprod() noexcept {
#if defined(__linux__)
  return has_neon() && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  int has = 0;
  size_t bytes = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &bytes, nullptr, 0) == 0 && has != 0;
#else
  return false;
#endif
}
#endif

struct Implementation {
  bool (*supported)() noexcept;  // null: not in this build
  KernelTable kernels;
};

template <bh_level level>
constexpr Implementation kImplementation = {nullptr, {}};

template <>
constexpr Implementation kImplementation<BH_LEVEL_SERIAL> = {
    always, {pool_and_pack_serial, predict_heads_serial, run_dot_products_serial, &lay_out_serial}};

#if defined(BITHEADS_X86_LEVELS)
template <>
constexpr Implementation kImplementation<BH_LEVEL_AVX2> = {
    has_avx2, {pool_and_pack_avx2, predict_heads_avx2, run_dot_products_avx2, &lay_out_avx2}};

#if defined(BITHEADS_AVX2_VNNI)
template <>
constexpr Implementation kImplementation<BH_LEVEL_AVX2_VNNI> = {
    has_avx2_vnni,
    {pool_and_pack_avx2, predict_heads_avx2_vnni, run_dot_products_avx2_vnni, &lay_out_avx2}};
#endif

template <>
constexpr Implementation kImplementation<BH_LEVEL_AVX512> = {
    has_avx512,
    {pool_and_pack_avx512, predict_heads_avx512, run_dot_products_avx512, &lay_out_avx512}};

template <>
constexpr Implementation kImplementation<BH_LEVEL_AVX512_VNNI> = {
    has_avx512_vnni,
    {pool_and_pack_avx512, predict_heads_avx512_vnni, run_dot_products_avx512_vnni,
     &lay_out_avx512}};
#endif

#if defined(BITHEADS_ARM_LEVELS)
template <>
constexpr Implementation kImplementation<BH_LEVEL_NEON> = {
    has_neon,
    // Compilers make the portable loops that lay out heads NEON's themselves.
    {pool_and_pack_neon, predict_heads_neon, run_dot_products_neon, &lay_out_serial}};

template <>
constexpr Implementation kImplementation<BH_LEVEL_NEON_DOTPROD> = {
    has_neon_dotprod,
    {pool_and_pack_neon, predict_heads_neon_dotprod, run_dot_products_neon, &lay_out_serial}};
#endif

struct Level {
  bh_level level;
  const char *name;
  Implementation implementation;
};

#define BITHEADS_LEVEL_ROW(NAME, name, value) \
  {BH_LEVEL_##NAME, #name, kImplementation<BH_LEVEL_##NAME>},
constexpr Level kLevels[] = {BH_FOR_EACH_LEVEL(BITHEADS_LEVEL_ROW)};
#undef BITHEADS_LEVEL_ROW

#define BITHEADS_LEVEL_NAME(NAME, name, value) #name ", "
#define BITHEADS_LEVEL_NAMES BH_FOR_EACH_LEVEL(BITHEADS_LEVEL_NAME)

bool runs_here(const Level &entry) noexcept {
  return entry.implementation.supported != nullptr && entry.implementation.supported();
}

const Level *find_level(bh_level level) noexcept {
  for (const Level &entry : kLevels) {
    if (entry.level == level) return &entry;
  }
  return nullptr;
}

struct Choice {
  bh_status status;
  const Level *entry;  // null unless status is BH_OK
};

Choice choose() noexcept {
  const char *wanted = std::getenv("BITHEADS_KERNEL_LEVEL");
  if (wanted == nullptr || wanted[0] == '\0') {
    const Level *fastest = &kLevels[0];
    for (const Level &entry : kLevels) {
      if (runs_here(entry)) fastest = &entry;
    }
    return {BH_OK, fastest};
  }
  for (const Level &entry : kLevels) {
    if (std::strcmp(wanted, entry.name) == 0) {
      return runs_here(entry) ? Choice{BH_OK, &entry} : Choice{BH_UNSUPPORTED_LEVEL, nullptr};
    }
  }
  return {BH_UNKNOWN_LEVEL, nullptr};
}

const Choice &active() noexcept {
  static const Choice choice = choose();
  return choice;
}

}  // namespace

bh_status find_kernels(bh_level level, const KernelTable **table) noexcept {
  if (level == BH_LEVEL_ACTIVE) {
    const Choice &choice = active();
    if (choice.status == BH_OK) *table = &choice.entry->implementation.kernels;
    return choice.status;
  }
  const Level *entry = find_level(level);
  if (entry == nullptr) return BH_INVALID_ARGUMENT;
  if (!runs_here(*entry)) return BH_UNSUPPORTED_LEVEL;
  *table = &entry->implementation.kernels;
  return BH_OK;
}

}  // namespace bitheads

extern "C" {

int32_t bh_abi_version(void) {
  return BH_KERNELS_ABI_VERSION;
}

const char *bh_status_message(bh_status status) {
  switch (status) {
    case BH_OK:
      return "ok";
    case BH_INVALID_ARGUMENT:
      return "invalid argument: see kernels/SPEC.md for what the call accepts";
    case BH_UNKNOWN_LEVEL:
      return "BITHEADS_KERNEL_LEVEL names no level: set it to " BITHEADS_LEVEL_NAMES "or unset it";
    case BH_UNSUPPORTED_LEVEL:
      return "this machine or this build cannot run the kernel level asked for: unset "
             "BITHEADS_KERNEL_LEVEL, or set it to a supported level";
  }
  return "unknown status";
}

bh_status bh_active_level(bh_level *level) {
  if (level == nullptr) return BH_INVALID_ARGUMENT;
  const bitheads::Choice &choice = bitheads::active();
  if (choice.status == BH_OK) *level = choice.entry->level;
  return choice.status;
}

int32_t bh_level_supported(bh_level level) {
  if (level == BH_LEVEL_ACTIVE) return bitheads::active().status == BH_OK ? 1 : 0;
  const bitheads::Level *entry = bitheads::find_level(level);
  return entry != nullptr && bitheads::runs_here(*entry) ? 1 : 0;
}

const char *bh_level_name(bh_level level) {
  const bitheads::Level *entry = bitheads::find_level(level);
  return entry == nullptr ? nullptr : entry->name;
}

}  // extern "C"
