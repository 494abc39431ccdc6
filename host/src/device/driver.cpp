#include "device/driver.h"

#include <dlfcn.h>

#include <mutex>

#include "error.h"

namespace bitheads {
namespace {

constexpr const char *kLibrary = "libcuda.so.1";
constexpr const char *kNvidiaDevice = "Type nvidia-smi to see which GPUs the driver knows";
constexpr int kMajor = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kMinor = 76;

thread_local const char *current_work = "loading the encoder";

std::string describe(const Driver &driver, CudaStatus status) {
  const char *name = nullptr;
  const char *text = nullptr;
  driver.get_error_name(status, &name);
  driver.get_error_string(status, &text);
  const std::string shown = name == nullptr ? "error " + std::to_string(status) : name;
  return text == nullptr ? shown : shown + ": " + text;
}

// After these every call in the context fails: what it had on the device is lost.
bool is_sticky(CudaStatus status) {
  switch (status) {
    case 700:  // CUDA_ERROR_ILLEGAL_ADDRESS
    case 702:  // CUDA_ERROR_LAUNCH_TIMEOUT
    case 709:  // CUDA_ERROR_CONTEXT_IS_DESTROYED
    case 710:  // CUDA_ERROR_ASSERT
    case 714:  // CUDA_ERROR_HARDWARE_STACK_ERROR
    case 715:  // CUDA_ERROR_ILLEGAL_INSTRUCTION
    case 716:  // CUDA_ERROR_MISALIGNED_ADDRESS
    case 717:  // CUDA_ERROR_INVALID_ADDRESS_SPACE
    case 718:  // CUDA_ERROR_INVALID_PC
    case 719:  // CUDA_ERROR_LAUNCH_FAILED
    case 214:  // CUDA_ERROR_ECC_UNCORRECTABLE
      return true;
    default:
      return false;
  }
}

Driver open_driver() {
  void *library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char *why = dlerror();
    fail(
        Status::backend, "a GPU was asked for, but NVIDIA's driver cannot be opened (",
        why == nullptr ? kLibrary : why,
        "). Install it, and in a container pass the GPU on (docker run --gpus all); or ask for the "
        "backend openvino.");
  }
  Driver driver;
#define BITHEADS_FIND_CALL(member, name, arguments)                                        \
  driver.member = reinterpret_cast<CudaStatus(*) arguments>(dlsym(library, name));         \
  if (driver.member == nullptr) {                                                          \
    fail(Status::backend, "NVIDIA's driver, ", kLibrary, ", has no ", name,                \
         ": it is too old. Update it to one for CUDA 12 or newer, or ask for the backend " \
         "openvino.");                                                                     \
  }
  BITHEADS_DRIVER_CALLS(BITHEADS_FIND_CALL)
#undef BITHEADS_FIND_CALL
  return driver;
}

}  // namespace

const Driver &Driver::load() {
  static std::mutex lock;
  static const Driver *opened = nullptr;  // never closed: other libraries use it, too
  const std::lock_guard<std::mutex> hold(lock);
  if (opened == nullptr) opened = new Driver(open_driver());
  if (const CudaStatus status = opened->init(0); status != kCudaSuccess) {
    fail(Status::backend, "no GPU can be used (", describe(*opened, status), "). ", kNvidiaDevice,
         ".");
  }
  return *opened;
}

Device::Device(int index) : driver_(Driver::load()), index_(index) {
  int count = 0;
  check(driver_.device_count(&count));
  if (index < 0 || index >= count) {
    fail(Status::backend, "GPU ", index, ": got ", count, count == 1 ? " GPU. " : " GPUs. ",
         kNvidiaDevice, ", or pass another device.");
  }
  check(driver_.device_get(&device_, index));
  char name[256] = {};
  check(driver_.device_name(name, sizeof name - 1, device_));
  name_ = name;
  int major = 0;
  int minor = 0;
  check(driver_.device_attribute(&major, kMajor, device_));
  check(driver_.device_attribute(&minor, kMinor, device_));
  compute_capability_ = std::to_string(major) + "." + std::to_string(minor);
  check(driver_.retain_context(&context_, device_));
}

Device::~Device() {
  driver_.release_context(device_);
}

Device::Current::Current(const Device &device, const char *doing)
    : device_(device), doing_before_(current_work) {
  device.check(device.driver_.push_context(device.context_));
  current_work = doing;
}

Device::Current::~Current() {
  CudaHandle ignored = nullptr;
  device_.driver_.pop_context(&ignored);
  current_work = doing_before_;
}

void Device::check(CudaStatus status) const {
  if (status == kCudaSuccess) return;
  const std::string said = describe(driver_, status);
  if (status == kCudaOutOfMemory) {
    fail(Status::device_memory, "the GPU has no memory left while ", current_work, " (", said,
         "). Pass a smaller max_batch_tokens, or free memory that other programs hold.");
  }
  if (is_sticky(status)) {
    fail(Status::backend, "the GPU failed while ", current_work, ": ", said,
         ". All that this program has on it is lost: start the program again. If it fails again, "
         "update the driver.");
  }
  fail(Status::backend, "the GPU failed while ", current_work, ": ", said, ". ", kNvidiaDevice,
       ".");
}

}  // namespace bitheads
