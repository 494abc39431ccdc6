// The CUDA kernels, loaded: device code that was compiled once, and launches of it.
#ifndef BITHEADS_HOST_DEVICE_CODE_H
#define BITHEADS_HOST_DEVICE_CODE_H

#include <map>
#include <string>

#include "bitheads/cuda.h"
#include "device/memory.h"
#include "files.h"

namespace bitheads {

// Where the device code is if nobody names it: bitheads.fatbin beside this library.
fs::path default_device_code();

// The fat binary. Throws Error(backend) if it is missing, damaged or of another version.
std::string read_device_code(const fs::path &path);

// The loaded fat binary; the driver picks the machine code of its GPU.
class DeviceCode {
 public:
  // Throws Error(backend) if there is no device code, or none that this GPU can run.
  DeviceCode(const Device &device, const fs::path &path);

  // Enqueues a planned launch, in a current context.
  void launch(const bh_cuda_launch &launch, CudaHandle stream);

 private:
  const Device &device_;
  DeviceOwned<CudaHandle> module_;
  std::map<std::string, CudaHandle> functions_;
};

}  // namespace bitheads

#endif
