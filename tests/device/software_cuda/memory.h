// Device memory and pinned host memory: where it is, who may still use it.
//
// Each allocation has its own mapping that ends in an inaccessible page, begins as 0xCB, and after
// it is freed stays inaccessible, its addresses unused: an overrun, an uninitialized read and a use
// after free are seen instead of being lucky.
#ifndef BITHEADS_TESTS_SOFTWARE_CUDA_MEMORY_H
#define BITHEADS_TESTS_SOFTWARE_CUDA_MEMORY_H

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>

namespace soft {

struct Context;

struct Range {
  uintptr_t address;
  size_t bytes;
};

enum class MemoryKind { kDevice, kPinned, kRegistered };

struct Allocation {
  MemoryKind kind;
  uintptr_t address;
  size_t bytes;
  unsigned flags;
  CUcontext context;
  uint8_t *mapping;  // null if registered
  size_t mapping_bytes;
};

class Memory {
 public:
  static constexpr uint8_t kFresh = 0xCB;

  // Null if the system has no memory.
  const Allocation *allocate(MemoryKind kind, size_t bytes, unsigned flags, CUcontext context);
  const Allocation *add_registered(uintptr_t address, size_t bytes, unsigned flags,
                                   CUcontext context);
  // `address` begins a live allocation. Returns what was written outside of it, or "".
  std::string release(uintptr_t address);
  void release_all();

  // The live allocation that holds this address, or null.
  const Allocation *find(uintptr_t address) const;
  // Whether all of it is in one live allocation.
  bool covers(const Range &range) const;
  // Where an address is, for a report.
  std::string describe(uintptr_t address) const;
  bool was_freed(uintptr_t address) const;
  std::string damage(const Allocation &allocation) const;

  const std::map<uintptr_t, Allocation> &live() const { return live_; }
  // What the live device allocations take of the device's memory.
  size_t device_bytes() const { return device_bytes_; }
  static size_t occupied_bytes(size_t bytes);

 private:
  std::map<uintptr_t, Allocation> live_;
  std::map<uintptr_t, Allocation> freed_;
  std::deque<uintptr_t> freed_order_;
  size_t device_bytes_ = 0;
};

}  // namespace soft

#endif
