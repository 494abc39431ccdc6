#include "device/memory.h"

#include <algorithm>

namespace bitheads {
namespace {

// Waits for copies of the null stream, as those of `upload` are.
constexpr unsigned kBlocking = 0;       // CU_STREAM_DEFAULT
constexpr unsigned kDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING

}  // namespace

DeviceMemory allocate(const Device &device, size_t bytes) {
  DeviceAddress address = 0;
  device.check(device.driver().allocate(&address, std::max<size_t>(1, bytes)));
  return {device, address, device.driver().free};
}

DeviceMemory upload(const Device &device, const void *data, size_t bytes) {
  DeviceMemory memory = allocate(device, bytes);
  device.check(device.driver().copy_up(memory.get(), data, bytes));
  return memory;
}

DeviceOwned<CudaHandle> make_stream(const Device &device) {
  CudaHandle stream = nullptr;
  device.check(device.driver().create_stream(&stream, kBlocking));
  return {device, stream, device.driver().destroy_stream};
}

DeviceOwned<CudaHandle> make_event(const Device &device) {
  CudaHandle event = nullptr;
  device.check(device.driver().create_event(&event, kDisableTiming));
  return {device, event, device.driver().destroy_event};
}

}  // namespace bitheads
