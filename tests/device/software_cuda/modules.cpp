// Modules, functions and launches. A module's kernels are those of the host kernel library: the
// fat binary itself is not run.
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>

#include "driver.h"
#include "graphs.h"
#include "streams.h"

namespace soft {

struct Module {
  CUcontext context;
};

struct Function {
  std::string name;
  CUmodule module;
  size_t args_bytes;  // 0 if the kernel library does not say
  int max_dynamic_shared_bytes = 48 * 1024;
};

namespace {

// tests/cuda/host: status 0, or `error` says what went wrong.
using RunKernel = int (*)(const char *name, const void *args, const uint32_t grid[3],
                          const uint32_t block[3], uint32_t shared_bytes, char error[256]);
// Size of the kernel's one argument, 0 if there is no such kernel.
using ArgsBytes = uint64_t (*)(const char *name);

constexpr size_t kErrorBytes = 256;
constexpr size_t kMaxArgsBytes = 32764;  // of CUDA 12.1 and newer; 4096 before

struct Kernels {
  RunKernel run = nullptr;
  ArgsBytes args_bytes = nullptr;
};

Kernels kernels;

bool has_kernel(const char *name, size_t *args_bytes) {
  *args_bytes = 0;
  if (kernels.args_bytes != nullptr) return (*args_bytes = kernels.args_bytes(name)) != 0;
  if (kernels.run == nullptr) return false;
  // An empty grid runs nothing, but an unknown name is an error.
  static const uint64_t args[4096 / 8] = {};
  const uint32_t grid[3] = {0, 1, 1}, block[3] = {32, 1, 1};
  char error[kErrorBytes] = "";
  return kernels.run(name, args, grid, block, 0, error) == 0;
}

// Most dynamic shared memory that a kernel can ask for.
int max_shared_bytes(const Device &device) {
  switch (device.major * 10 + device.minor) {
    case 80:
    case 87:
      return 163 * 1024;
    case 86:
    case 89:
      return 99 * 1024;
    case 75:
      return 64 * 1024;
    case 70:
      return 96 * 1024;
    default:
      return device.major >= 9 && device.major < 12 ? 227 * 1024 : 99 * 1024;
  }
}

// A kernel that reads or writes where it must not is reported with the place. Sanitizers do that
// better, with the line of the kernel.
thread_local sigjmp_buf after_fault;
thread_local volatile uintptr_t fault_address;

[[maybe_unused]] void on_fault(int, siginfo_t *info, void *) {
  fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
  siglongjmp(after_fault, 1);
}

class FaultHandler {
 public:
  FaultHandler() {
#if !defined(__SANITIZE_ADDRESS__)
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &segv_);
    sigaction(SIGBUS, &action, &bus_);
#endif
  }
  ~FaultHandler() {
#if !defined(__SANITIZE_ADDRESS__)
    sigaction(SIGSEGV, &segv_, nullptr);
    sigaction(SIGBUS, &bus_, nullptr);
#endif
  }

 private:
  [[maybe_unused]] struct sigaction segv_, bus_;
};

struct Launch {
  std::string name;
  std::vector<uint64_t> args;  // words: structs start at multiples of 8
  uint32_t grid[3], block[3], shared_bytes;
};

// On its own, for a fault comes back here: nothing in this frame may change in between.
__attribute__((noinline)) CUresult run_guarded(const Launch &launch, char *error) {
  if (sigsetjmp(after_fault, 1) != 0) return CUDA_ERROR_ILLEGAL_ADDRESS;
  const int failed = kernels.run(launch.name.c_str(), launch.args.data(), launch.grid, launch.block,
                                 launch.shared_bytes, error);
  return failed != 0 ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

// The lock is not held.
CUresult run_launch(const Launch &launch) {
  char error[kErrorBytes] = "";
  CUresult status;
  {
    FaultHandler handler;
    status = run_guarded(launch, error);
  }
  std::lock_guard<std::mutex> lock(state().mutex);
  if (status == CUDA_SUCCESS) return injected("execution");
  report("kernel " + launch.name + ": " +
         (status == CUDA_ERROR_ILLEGAL_ADDRESS
              ? "accesses " + state().memory.describe(fault_address)
              : std::string(error)));
  return status;
}

#if defined(__SANITIZE_ADDRESS__)
bool is_mapped(uintptr_t) {
  return false;  // its shadow makes everything look mapped
}
#else
bool is_mapped(uintptr_t address) {
  unsigned char resident;
  void *page = reinterpret_cast<void *>(address & ~uintptr_t{4095});
  return address >> 47 == 0 && address >= 1ull << 32 && mincore(page, 1, &resident) == 0;
}
#endif

// What the pointers inside the argument point to. A word that is some other mapped address is a
// pointer of the host's, which the device cannot follow.
CUresult find_touched(const Call &call, const Launch &launch, std::vector<Range> *touches) {
  for (const uint64_t word : launch.args) {
    const Memory &memory = state().memory;
    if (memory.find(word) != nullptr || memory.was_freed(word)) {
      touches->push_back({static_cast<uintptr_t>(word), 1});
    } else if (is_mapped(word)) {
      return call.misuse(
          CUDA_ERROR_ILLEGAL_ADDRESS,
          "passes " + launch.name + " a pointer to host memory: " + memory.describe(word));
    }
  }
  return CUDA_SUCCESS;
}

CUresult check_shape(const Call &call, const Launch &launch, const Function &function) {
  const uint32_t *grid = launch.grid, *block = launch.block;
  const uint64_t num_threads = uint64_t{block[0]} * block[1] * block[2];
  const bool is_good_grid = grid[0] != 0 && grid[0] <= 2147483647u && grid[1] != 0 &&
                            grid[1] <= 65535 && grid[2] != 0 && grid[2] <= 65535;
  const bool is_good_block = num_threads != 0 && num_threads <= 1024 && block[0] <= 1024 &&
                             block[1] <= 1024 && block[2] <= 64;
  const bool is_good_shared =
      launch.shared_bytes <= static_cast<uint32_t>(function.max_dynamic_shared_bytes);
  if (is_good_grid && is_good_block && is_good_shared) return CUDA_SUCCESS;
  const auto three = [](const uint32_t *n) {
    return std::to_string(n[0]) + " x " + std::to_string(n[1]) + " x " + std::to_string(n[2]);
  };
  return call.misuse(CUDA_ERROR_INVALID_VALUE,
                     "gets a launch of " + launch.name + " beyond the limits: grid " + three(grid) +
                         ", block " + three(block) + ", " + std::to_string(launch.shared_bytes) +
                         " bytes of shared memory, at most " +
                         std::to_string(function.max_dynamic_shared_bytes));
}

// The argument's bytes, from either way of passing them.
CUresult read_args(const Call &call, const Function &function, void **params, void **extra,
                   Launch *launch) {
  const void *data = nullptr;
  size_t bytes = 0;
  if (params != nullptr) {
    data = params[0];
    bytes = function.args_bytes;
    if (bytes == 0) {
      return call.misuse(CUDA_ERROR_NOT_SUPPORTED, "needs the size of the argument of " +
                                                       function.name + ": pass `extra` instead");
    }
  } else if (extra != nullptr) {
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
      if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) data = extra[1];
      if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) bytes = *static_cast<const size_t *>(extra[1]);
    }
  }
  if (data == nullptr || bytes > kMaxArgsBytes ||
      (function.args_bytes != 0 && bytes != function.args_bytes)) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE,
                       "gets " + std::to_string(bytes) + " bytes as argument of " + function.name +
                           ", expected " + std::to_string(function.args_bytes));
  }
  launch->args.resize((bytes + 7) / 8);
  memcpy(launch->args.data(), data, bytes);
  return CUDA_SUCCESS;
}

CUresult load_module(Call &call, CUmodule *handle, const void *image) {
  SOFT_TRY(call.refuse_during_capture());
  uint32_t magic;
  memcpy(&magic, image, sizeof magic);
  constexpr uint32_t kFatBinary = 0xBA55ED50, kElf = 0x464C457F;
  if (magic != kFatBinary && magic != kElf) return CUDA_ERROR_INVALID_IMAGE;
  auto module = std::make_shared<Module>();
  module->context = call.context->handle;
  *handle = state().modules.add(module);
  return CUDA_SUCCESS;
}

std::shared_ptr<Function> find_function(const Call &call, CUfunction handle, CUresult *status) {
  auto function = state().functions.find(handle);
  *status = CUDA_SUCCESS;
  if (function == nullptr || state().modules.find(function->module) == nullptr) {
    *status = call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets a function of no loaded module");
    return nullptr;
  }
  return function;
}

}  // namespace

}  // namespace soft

using namespace soft;

SOFT_EXPORT int soft_set_kernels(const char *path) {
  std::lock_guard<std::mutex> lock(state().mutex);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return -1;
  kernels.run = reinterpret_cast<RunKernel>(dlsym(library, "run_kernel_on_host"));
  kernels.args_bytes = reinterpret_cast<ArgsBytes>(dlsym(library, "kernel_args_bytes_on_host"));
  return kernels.run == nullptr ? -1 : 0;
}

SOFT_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  SOFT_CALL(cuModuleLoadData, kContext);
  return load_module(call, module, image);
}

SOFT_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned,
                                        CUjit_option *, void **) {
  SOFT_CALL(cuModuleLoadData, kContext);
  return load_module(call, module, image);
}

SOFT_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *path) {
  SOFT_CALL(cuModuleLoad, kContext);
  uint32_t magic = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
  file.read(reinterpret_cast<char *>(&magic), sizeof magic);
  return load_module(call, module, &magic);
}

SOFT_EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image) {
  SOFT_CALL(cuModuleLoadData, kContext);
  return load_module(call, module, image);
}

SOFT_EXPORT CUresult cuModuleUnload(CUmodule handle) {
  SOFT_CALL(cuModuleUnload, kContext);
  if (state().modules.find(handle) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets no loaded module");
  }
  state().modules.remove(handle);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuModuleGetFunction(CUfunction *handle, CUmodule module, const char *name) {
  SOFT_CALL(cuModuleGetFunction, kContext);
  if (state().modules.find(module) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets no loaded module");
  }
  if (kernels.run == nullptr) {
    return call.misuse(CUDA_ERROR_NOT_FOUND, "needs soft_set_kernels first");
  }
  auto function = std::make_shared<Function>();
  if (!has_kernel(name, &function->args_bytes)) return CUDA_ERROR_NOT_FOUND;
  function->name = name;
  function->module = module;
  *handle = state().functions.add(function);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute,
                                        CUfunction handle) {
  SOFT_CALL(cuFuncGetAttribute, kContext);
  CUresult status;
  const auto function = find_function(call, handle, &status);
  if (function == nullptr) return status;
  const Device &device = state().device;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = 1024;
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = 40;
      break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = device.major * 10 + device.minor;
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = function->max_dynamic_shared_bytes;
      break;
    default:
      *value = 0;
  }
  return attribute < CU_FUNC_ATTRIBUTE_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SOFT_EXPORT CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute,
                                        int value) {
  SOFT_CALL(cuFuncSetAttribute, kContext);
  CUresult status;
  const auto function = find_function(call, handle, &status);
  if (function == nullptr) return status;
  if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
  if (value < 0 || value > max_shared_bytes(state().device)) return CUDA_ERROR_INVALID_VALUE;
  function->max_dynamic_shared_bytes = value;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) {
  return CUDA_SUCCESS;
}

// Of CUDA 2; pycuda still calls it before every launch that does not go through `prepare`.
SOFT_EXPORT CUresult cuFuncSetBlockShape(CUfunction handle, int, int, int) {
  SOFT_CALL(cuFuncSetBlockShape, kContext);
  CUresult status;
  find_function(call, handle, &status);
  return status;
}

SOFT_EXPORT CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y,
                                    unsigned grid_z, unsigned block_x, unsigned block_y,
                                    unsigned block_z, unsigned shared_bytes, CUstream stream_handle,
                                    void **params, void **extra) {
  SOFT_CALL(cuLaunchKernel, kContext);
  CUresult status;
  const auto function = find_function(call, handle, &status);
  if (function == nullptr) return status;
  const auto stream = find_stream(call, stream_handle, &status);
  if (stream == nullptr) return status;
  Launch launch{
      function->name, {}, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes};
  SOFT_TRY(check_shape(call, launch, *function));
  SOFT_TRY(read_args(call, *function, params, extra, &launch));
  Operation operation;
  operation.what = "the kernel " + function->name;
  SOFT_TRY(find_touched(call, launch, &operation.touches));
  operation.releases_lock = true;
  operation.run = [launch = std::move(launch)] { return run_launch(launch); };
  count("launches");
  count("launches:" + function->name);
  return submit(call, stream, std::move(operation));
}

namespace soft {
int optin_shared_bytes(const Device &device) {
  return max_shared_bytes(device);
}
}  // namespace soft
