// What is the device's and ends with its owner: memory, streams, events. Each makes the context
// current when it goes; what is in flight and uses it must have ended.
#ifndef BITHEADS_HOST_DEVICE_MEMORY_H
#define BITHEADS_HOST_DEVICE_MEMORY_H

#include <utility>

#include "device/driver.h"

namespace bitheads {

// Gives a handle or an address back by one call of the driver. Errors are dropped: after a failed
// launch the driver refuses all that follows, and the call that met the failure has reported it.
template <class Value>
class DeviceOwned {
 public:
  using Release = CudaStatus (*)(Value);

  DeviceOwned() = default;
  DeviceOwned(const Device &device, Value value, Release release)
      : device_(&device), value_(value), release_(release) {}
  DeviceOwned(DeviceOwned &&other) noexcept
      : device_(other.device_), value_(other.value_), release_(other.release_) {
    other.device_ = nullptr;
  }
  DeviceOwned &operator=(DeviceOwned &&other) noexcept {
    std::swap(device_, other.device_);
    std::swap(value_, other.value_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~DeviceOwned() { reset(); }

  Value get() const { return value_; }
  explicit operator bool() const { return device_ != nullptr; }
  void reset() {
    if (device_ == nullptr) return;
    try {
      const Device::Current current(*device_, "freeing what it had");
      release_(value_);
    } catch (...) {
    }
    device_ = nullptr;
  }

 private:
  const Device *device_ = nullptr;
  Value value_ = {};
  Release release_ = nullptr;
};

using DeviceMemory = DeviceOwned<DeviceAddress>;

// These want a current context. They throw Error(device_memory) or Error(backend).
DeviceMemory allocate(const Device &device, size_t bytes);
DeviceMemory upload(const Device &device, const void *data, size_t bytes);
DeviceOwned<CudaHandle> make_stream(const Device &device);
DeviceOwned<CudaHandle> make_event(const Device &device);

// Page-locked memory of the host, which the device reads and writes while the host goes on.
template <class Item>
class PageLocked {
 public:
  PageLocked() = default;
  PageLocked(const Device &device, size_t size) : size_(size) {
    void *data = nullptr;
    device.check(device.driver().allocate_host(&data, size * sizeof(Item)));
    memory_ = DeviceOwned<void *>(device, data, device.driver().free_host);
  }

  Item *data() const { return static_cast<Item *>(memory_.get()); }
  size_t size() const { return size_; }

 private:
  DeviceOwned<void *> memory_;
  size_t size_ = 0;
};

}  // namespace bitheads

#endif
