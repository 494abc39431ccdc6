// The GPU, through the driver's own library, which is opened when a GPU is asked for: its primary
// context, its memory, and errors that say what to do.
#ifndef BITHEADS_HOST_DEVICE_DRIVER_H
#define BITHEADS_HOST_DEVICE_DRIVER_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace bitheads {

// What cuda.h calls CUresult, CUdeviceptr, and its handles. It is not included, so that libbitheads
// builds everywhere; the driver keeps these calls as they are.
using CudaStatus = int;
using DeviceAddress = unsigned long long;
using CudaHandle = void *;

constexpr CudaStatus kCudaSuccess = 0;
constexpr CudaStatus kCudaOutOfMemory = 2;

// Every entry of the driver that is called, as X(member, name in the library, arguments).
#define BITHEADS_DRIVER_CALLS(X)                                                                   \
  X(init, "cuInit", (unsigned))                                                                    \
  X(get_error_name, "cuGetErrorName", (CudaStatus, const char **))                                 \
  X(get_error_string, "cuGetErrorString", (CudaStatus, const char **))                             \
  X(device_count, "cuDeviceGetCount", (int *))                                                     \
  X(device_get, "cuDeviceGet", (int *, int))                                                       \
  X(device_name, "cuDeviceGetName", (char *, int, int))                                            \
  X(device_attribute, "cuDeviceGetAttribute", (int *, int, int))                                   \
  X(retain_context, "cuDevicePrimaryCtxRetain", (CudaHandle *, int))                               \
  X(release_context, "cuDevicePrimaryCtxRelease_v2", (int))                                        \
  X(push_context, "cuCtxPushCurrent_v2", (CudaHandle))                                             \
  X(pop_context, "cuCtxPopCurrent_v2", (CudaHandle *))                                             \
  X(allocate, "cuMemAlloc_v2", (DeviceAddress *, size_t))                                          \
  X(free, "cuMemFree_v2", (DeviceAddress))                                                         \
  X(allocate_host, "cuMemAllocHost_v2", (void **, size_t))                                         \
  X(free_host, "cuMemFreeHost", (void *))                                                          \
  X(copy_up, "cuMemcpyHtoD_v2", (DeviceAddress, const void *, size_t))                             \
  X(copy_up_async, "cuMemcpyHtoDAsync_v2", (DeviceAddress, const void *, size_t, CudaHandle))      \
  X(copy_down_async, "cuMemcpyDtoHAsync_v2", (void *, DeviceAddress, size_t, CudaHandle))          \
  X(create_stream, "cuStreamCreate", (CudaHandle *, unsigned))                                     \
  X(destroy_stream, "cuStreamDestroy_v2", (CudaHandle))                                            \
  X(synchronize_stream, "cuStreamSynchronize", (CudaHandle))                                       \
  X(create_event, "cuEventCreate", (CudaHandle *, unsigned))                                       \
  X(destroy_event, "cuEventDestroy_v2", (CudaHandle))                                              \
  X(record_event, "cuEventRecord", (CudaHandle, CudaHandle))                                       \
  X(synchronize_event, "cuEventSynchronize", (CudaHandle))                                         \
  X(load_module, "cuModuleLoadData", (CudaHandle *, const void *))                                 \
  X(unload_module, "cuModuleUnload", (CudaHandle))                                                 \
  X(get_function, "cuModuleGetFunction", (CudaHandle *, CudaHandle, const char *))                 \
  X(set_function_attribute, "cuFuncSetAttribute", (CudaHandle, int, int))                          \
  X(launch_kernel, "cuLaunchKernel",                                                               \
    (CudaHandle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CudaHandle, \
     void **, void **))                                                                            \
  X(launch_host_function, "cuLaunchHostFunc", (CudaHandle, void (*)(void *), void *))              \
  X(begin_capture, "cuStreamBeginCapture_v2", (CudaHandle, int))                                   \
  X(end_capture, "cuStreamEndCapture", (CudaHandle, CudaHandle *))                                 \
  X(instantiate_graph, "cuGraphInstantiateWithFlags",                                              \
    (CudaHandle *, CudaHandle, unsigned long long))                                                \
  X(launch_graph, "cuGraphLaunch", (CudaHandle, CudaHandle))                                       \
  X(destroy_graph_exec, "cuGraphExecDestroy", (CudaHandle))                                        \
  X(destroy_graph, "cuGraphDestroy", (CudaHandle))

struct Driver {
#define BITHEADS_DECLARE_CALL(member, name, arguments) CudaStatus(*member) arguments = nullptr;
  BITHEADS_DRIVER_CALLS(BITHEADS_DECLARE_CALL)
#undef BITHEADS_DECLARE_CALL

  // The driver, opened and initialized. Throws Error(backend) if there is none, or no GPU.
  static const Driver &load();
};

// One GPU and its primary context, which TensorRT and ONNX Runtime use as well.
class Device {
 public:
  // Throws Error(backend) if there is no driver or no such GPU.
  explicit Device(int index);
  ~Device();
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;

  int index() const { return index_; }
  const std::string &name() const { return name_; }
  const std::string &compute_capability() const { return compute_capability_; }  // such as "8.6"
  const Driver &driver() const { return driver_; }

  // The context, for this thread, while it lives; errors say that they came while `doing`, which is
  // to be a literal.
  class Current {
   public:
    Current(const Device &device, const char *doing);
    ~Current();
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;

   private:
    const Device &device_;
    const char *doing_before_;
  };

  // Throws Error(device_memory) or Error(backend) for what a call of the driver gave, unless that
  // is success.
  void check(CudaStatus status) const;

 private:
  const Driver &driver_;
  int index_;
  int device_ = 0;
  CudaHandle context_ = nullptr;
  std::string name_;
  std::string compute_capability_;
};

}  // namespace bitheads

#endif
