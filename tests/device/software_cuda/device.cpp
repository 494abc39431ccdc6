// The one device, its contexts, and what errors are called.
#include <cstdio>
#include <cstring>

#include "driver.h"
#include "graphs.h"
#include "streams.h"

namespace soft {

int optin_shared_bytes(const Device &device);  // modules.cpp

State &state() {
  static State *the_state = new State;  // lives as long as pycuda's last object
  return *the_state;
}

void report(const std::string &what) {
  state().reports.push_back(what);
}

void count(const std::string &name, uint64_t amount) {
  state().counters[name] += amount;
}

std::string hex(uintptr_t value) {
  char text[32];
  snprintf(text, sizeof text, "0x%zx", static_cast<size_t>(value));
  return text;
}

CUresult injected(const std::string &name) {
  const auto found = state().injections.find(name);
  if (found == state().injections.end()) return CUDA_SUCCESS;
  Injection &injection = found->second;
  if (injection.calls_until > 0) {
    --injection.calls_until;
    return CUDA_SUCCESS;
  }
  const CUresult status = injection.status;
  if (--injection.times == 0) state().injections.erase(found);
  return status;
}

std::vector<CUcontext> &context_stack() {
  static thread_local std::vector<CUcontext> stack;
  return stack;
}

std::shared_ptr<Context> current_context() {
  return context_stack().empty() ? nullptr : state().contexts.find(context_stack().back());
}

Call::Call(const char *name, Needs needs) : lock(state().mutex), name_(name) {
  count(std::string("calls:") + name);
  if (needs != kNothing && !state().is_initialized) {
    status = CUDA_ERROR_NOT_INITIALIZED;
    return;
  }
  context = current_context();
  if (needs == kContext) {
    if (context == nullptr) {
      status =
          context_stack().empty() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_CONTEXT_IS_DESTROYED;
      misuse(status, "needs a current context in this thread");
      return;
    }
    if (context->sticky != CUDA_SUCCESS) {
      status = context->sticky;
      return;
    }
  }
  status = injected(name);
}

CUresult Call::misuse(CUresult code, const std::string &what) const {
  report(std::string(name_) + " " + what);
  return code;
}

CUresult Call::refuse_during_capture() {
  const auto capture = forbidding_capture();
  if (capture == nullptr) return CUDA_SUCCESS;
  invalidate(*capture);
  return misuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "is called while a stream is captured");
}

namespace {

CUcontext create_context(unsigned flags, bool is_primary) {
  auto context = std::make_shared<Context>();
  context->flags = flags;
  context->is_primary = is_primary;
  context->handle = state().contexts.add(context);
  make_default_streams(*context);
  return context->handle;
}

// Everything in it goes with it. What the caller should have freed is reported.
void destroy_context(const std::shared_ptr<Context> &context) {
  State &s = state();
  size_t num_bytes = 0, num_allocations = 0;
  std::vector<uintptr_t> addresses;
  for (const auto &[address, allocation] : s.memory.live()) {
    if (allocation.context == context->handle) addresses.push_back(address);
  }
  for (const uintptr_t address : addresses) {
    num_bytes += s.memory.find(address)->bytes;
    ++num_allocations;
    const std::string damage = s.memory.release(address);
    if (!damage.empty() && context->sticky == CUDA_SUCCESS) report(damage);
  }
  if (num_allocations != 0 && context->sticky == CUDA_SUCCESS) {  // else nothing could be freed
    report("a context is destroyed with " + std::to_string(num_allocations) + " allocations of " +
           std::to_string(num_bytes) + " bytes in it");
  }
  for (size_t i = s.queues.size(); i-- > 0;) {
    if (s.queues[i]->context != context->handle) continue;
    s.streams.remove(s.queues[i]->handle);
    s.queues.erase(s.queues.begin() + static_cast<std::ptrdiff_t>(i));
  }
  s.contexts.remove(context->handle);
}

int attribute_value(const Device &device, CUdevice_attribute attribute) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return device.major;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      return device.minor;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
      return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
      return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
      return 2147483647;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
      return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      return 48 * 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      return optin_shared_bytes(device);
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      return optin_shared_bytes(device) + 1024;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
      return 65536;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      return device.major == 8 && device.minor == 0 ? 2048 : device.major == 9 ? 2048 : 1536;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return 28;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      return 1777000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
      return 7501000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      return 192;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
      return 3 << 20;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
      return 2;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
      return 65536;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
      return 1;
    default:
      return 0;
  }
}

struct ErrorName {
  CUresult status;
  const char *name;
  const char *text;
};

#define SOFT_ERROR(name, text) {name, #name, text}
constexpr ErrorName kErrors[] = {
    SOFT_ERROR(CUDA_SUCCESS, "no error"),
    SOFT_ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    SOFT_ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    SOFT_ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    SOFT_ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    SOFT_ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    SOFT_ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    SOFT_ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    SOFT_ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU,
               "no kernel image is available for execution on the device"),
    SOFT_ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    SOFT_ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    SOFT_ERROR(CUDA_ERROR_FILE_NOT_FOUND, "file not found"),
    SOFT_ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    SOFT_ERROR(CUDA_ERROR_NOT_READY, "device not ready"),
    SOFT_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    SOFT_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    SOFT_ERROR(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, "the primary context is active"),
    SOFT_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    SOFT_ERROR(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
               "part or all of the requested memory range is already mapped"),
    SOFT_ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    SOFT_ERROR(CUDA_ERROR_NOT_PERMITTED, "operation not permitted"),
    SOFT_ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
               "operation not permitted when stream is capturing"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
               "operation failed due to a previous error during capture"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE,
               "operation would result in a merge of separate capture sequences"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
               "capture was not ended in the same stream as it began"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
               "dependency created on uncaptured work in another stream"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
               "operation would make the legacy stream depend on a capturing blocking stream"),
    SOFT_ERROR(CUDA_ERROR_CAPTURED_EVENT,
               "operation not permitted on an event last recorded in a capturing stream"),
    SOFT_ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
               "attempt to terminate a thread-local capture sequence from another thread"),
    SOFT_ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
};

const ErrorName *find_error(CUresult status) {
  for (const ErrorName &error : kErrors) {
    if (error.status == status) return &error;
  }
  return nullptr;
}

}  // namespace

}  // namespace soft

using namespace soft;

SOFT_EXPORT CUresult cuInit(unsigned) {
  SOFT_CALL(cuInit, kNothing);
  state().is_initialized = true;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuGetErrorString(CUresult status, const char **text) {
  const ErrorName *error = find_error(status);
  *text = error != nullptr ? error->text : "an error that the software driver never gives";
  return error != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SOFT_EXPORT CUresult cuGetErrorName(CUresult status, const char **name) {
  const ErrorName *error = find_error(status);
  *name = error != nullptr ? error->name : nullptr;
  return error != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SOFT_EXPORT CUresult cuDeviceGetCount(int *number) {
  SOFT_CALL(cuDeviceGetCount, kInitialized);
  *number = 1;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  SOFT_CALL(cuDeviceGet, kInitialized);
  *device = 0;
  return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

SOFT_EXPORT CUresult cuDeviceGetName(char *name, int bytes, CUdevice) {
  SOFT_CALL(cuDeviceGetName, kInitialized);
  snprintf(name, static_cast<size_t>(bytes), "software device");
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDeviceGetPCIBusId(char *id, int bytes, CUdevice) {
  SOFT_CALL(cuDeviceGetPCIBusId, kInitialized);
  snprintf(id, static_cast<size_t>(bytes), "0000:00:00.0");
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice) {
  SOFT_CALL(cuDeviceGetUuid, kInitialized);
  memcpy(uuid->bytes, "software device", 16);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) {
  SOFT_CALL(cuDeviceTotalMem, kInitialized);
  *bytes = state().device.total_memory_bytes;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice) {
  SOFT_CALL(cuDeviceComputeCapability, kInitialized);
  *major = state().device.major;
  *minor = state().device.minor;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
  SOFT_CALL(cuDeviceGetAttribute, kInitialized);
  *value = attribute_value(state().device, attribute);
  const bool exists = attribute > 0 && attribute < CU_DEVICE_ATTRIBUTE_MAX;
  return exists ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SOFT_EXPORT CUresult cuCtxCreate_v4(CUcontext *handle, CUctxCreateParams *, unsigned flags,
                                    CUdevice) {
  SOFT_CALL(cuCtxCreate, kInitialized);
  *handle = create_context(flags, false);
  context_stack().push_back(*handle);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *handle, CUdevice) {
  SOFT_CALL(cuDevicePrimaryCtxRetain, kInitialized);
  const auto primary = state().contexts.find(state().primary);
  if (primary != nullptr) {
    ++primary->references;
  } else {
    state().primary = create_context(0, true);
  }
  *handle = state().primary;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
  SOFT_CALL(cuDevicePrimaryCtxRelease, kInitialized);
  const auto primary = state().contexts.find(state().primary);
  if (primary == nullptr) return call.misuse(CUDA_ERROR_INVALID_CONTEXT, "releases once too often");
  if (--primary->references == 0) destroy_context(primary);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned *flags, int *is_active) {
  SOFT_CALL(cuDevicePrimaryCtxGetState, kInitialized);
  const auto primary = state().contexts.find(state().primary);
  *flags = 0;
  *is_active = primary != nullptr ? 1 : 0;
  return CUDA_SUCCESS;
}

namespace {

CUresult destroy(Call &call, CUcontext handle) {
  const auto context = state().contexts.find(handle);
  if (context == nullptr || context->is_primary) {
    return call.misuse(CUDA_ERROR_INVALID_CONTEXT, "gets no context that was created");
  }
  if (!context_stack().empty() && context_stack().back() == handle) context_stack().pop_back();
  destroy_context(context);
  return CUDA_SUCCESS;
}

}  // namespace

SOFT_EXPORT CUresult cuCtxDestroy_v2(CUcontext handle) {
  SOFT_CALL(cuCtxDestroy, kInitialized);
  return destroy(call, handle);
}

SOFT_EXPORT CUresult cuCtxAttach(CUcontext *handle, unsigned) {
  SOFT_CALL(cuCtxAttach, kInitialized);
  if (call.context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  ++call.context->references;
  *handle = call.context->handle;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxDetach(CUcontext handle) {
  SOFT_CALL(cuCtxDetach, kInitialized);
  const auto context = state().contexts.find(handle);
  if (context != nullptr && --context->references > 0) return CUDA_SUCCESS;
  return destroy(call, handle);
}

SOFT_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  SOFT_CALL(cuCtxPushCurrent, kInitialized);
  if (state().contexts.find(handle) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_CONTEXT, "gets a context that does not exist (any more)");
  }
  context_stack().push_back(handle);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *handle) {
  SOFT_CALL(cuCtxPopCurrent, kInitialized);
  if (context_stack().empty()) return call.misuse(CUDA_ERROR_INVALID_CONTEXT, "finds no context");
  if (handle != nullptr) *handle = context_stack().back();
  context_stack().pop_back();
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxSetCurrent(CUcontext handle) {
  SOFT_CALL(cuCtxSetCurrent, kInitialized);
  if (handle != nullptr && state().contexts.find(handle) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_CONTEXT, "gets a context that does not exist (any more)");
  }
  if (!context_stack().empty()) context_stack().pop_back();
  if (handle != nullptr) context_stack().push_back(handle);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxGetCurrent(CUcontext *handle) {
  SOFT_CALL(cuCtxGetCurrent, kInitialized);
  *handle = context_stack().empty() ? nullptr : context_stack().back();
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxGetDevice(CUdevice *device) {
  SOFT_CALL(cuCtxGetDevice, kContext);
  *device = 0;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxGetApiVersion(CUcontext, unsigned *version) {
  SOFT_CALL(cuCtxGetApiVersion, kInitialized);
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuCtxSynchronize() {
  SOFT_CALL(cuCtxSynchronize, kContext);
  SOFT_TRY(call.refuse_during_capture());
  count("synchronizations");
  return run_all(call);
}
