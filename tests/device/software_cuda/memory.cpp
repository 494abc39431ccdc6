#include "memory.h"

#include <sys/mman.h>

#include <cstring>

#include "driver.h"
#include "streams.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) (static_cast<void>(address))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) (static_cast<void>(address))
#endif

namespace soft {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kAlignment = 256;     // what cuMemAlloc promises
constexpr size_t kOccupiedUnit = 512;  // what an allocation is rounded up to
constexpr size_t kMaxFreed = 8192;     // mappings are limited to 65530 a process
constexpr uint8_t kCanary = 0x5A;

size_t round_up(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Between the first accessible page and the allocation, and between its end and the guard page.
Range front(const Allocation &a) {
  const auto first = reinterpret_cast<uintptr_t>(a.mapping) + kPageBytes;
  return {first, a.address - first};
}
Range back(const Allocation &a) {
  const auto end = reinterpret_cast<uintptr_t>(a.mapping) + a.mapping_bytes - kPageBytes;
  return {a.address + a.bytes, end - a.address - a.bytes};
}

const Allocation *find_in(const std::map<uintptr_t, Allocation> &allocations, uintptr_t address) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return nullptr;
  const Allocation &candidate = std::prev(after)->second;
  return address - candidate.address < candidate.bytes ? &candidate : nullptr;
}

const char *kind_name(MemoryKind kind) {
  return kind == MemoryKind::kDevice   ? "device allocation"
         : kind == MemoryKind::kPinned ? "pinned allocation"
                                       : "registered host memory";
}

std::string text(const Allocation &a) {
  return std::string("the ") + kind_name(a.kind) + " of " + std::to_string(a.bytes) + " bytes at " +
         hex(a.address);
}

}  // namespace

size_t Memory::occupied_bytes(size_t bytes) {
  return round_up(bytes, kOccupiedUnit);
}

const Allocation *Memory::allocate(MemoryKind kind, size_t bytes, unsigned flags,
                                   CUcontext context) {
  const size_t usable = round_up(round_up(bytes, kAlignment), kPageBytes);
  const size_t mapping_bytes = usable + 2 * kPageBytes;
  void *mapping =
      mmap(nullptr, mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  auto *begin = static_cast<uint8_t *>(mapping);
  if (mprotect(begin + kPageBytes, usable, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping, mapping_bytes);
    return nullptr;
  }
  // As far right as the alignment allows, so that an overrun soon meets the guard page.
  const auto end = reinterpret_cast<uintptr_t>(begin) + kPageBytes + usable;
  const uintptr_t address = end - round_up(bytes, kAlignment);
  const Allocation allocation{kind, address, bytes, flags, context, begin, mapping_bytes};
  memset(begin + kPageBytes, kCanary, usable);
  memset(reinterpret_cast<void *>(address), kFresh, bytes);
  for (const Range &range : {front(allocation), back(allocation)}) {
    ASAN_POISON_MEMORY_REGION(reinterpret_cast<void *>(range.address), range.bytes);
  }
  if (kind == MemoryKind::kDevice) device_bytes_ += occupied_bytes(bytes);
  return &(live_[address] = allocation);
}

const Allocation *Memory::add_registered(uintptr_t address, size_t bytes, unsigned flags,
                                         CUcontext context) {
  return &(live_[address] = {MemoryKind::kRegistered, address, bytes, flags, context, nullptr, 0});
}

std::string Memory::damage(const Allocation &allocation) const {
  if (allocation.mapping == nullptr) return "";
#if !defined(__SANITIZE_ADDRESS__)  // which reports the access itself
  for (const Range &range : {front(allocation), back(allocation)}) {
    for (uintptr_t at = range.address; at < range.address + range.bytes; ++at) {
      if (*reinterpret_cast<const uint8_t *>(at) != kCanary) {
        return "written outside an allocation, " + describe(at);
      }
    }
  }
#endif
  return "";
}

std::string Memory::release(uintptr_t address) {
  const auto found = live_.find(address);
  const Allocation allocation = found->second;
  const std::string damaged = damage(allocation);
  live_.erase(found);
  if (allocation.mapping == nullptr) return damaged;
  if (allocation.kind == MemoryKind::kDevice) device_bytes_ -= occupied_bytes(allocation.bytes);
  ASAN_UNPOISON_MEMORY_REGION(allocation.mapping + kPageBytes,
                              allocation.mapping_bytes - 2 * kPageBytes);
  // Mapped anew, its pages go back to the system and its addresses stay taken.
  mmap(allocation.mapping, allocation.mapping_bytes, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  freed_[address] = allocation;
  freed_order_.push_back(address);
  if (freed_order_.size() > kMaxFreed) {
    const Allocation &oldest = freed_[freed_order_.front()];
    munmap(oldest.mapping, oldest.mapping_bytes);
    freed_.erase(freed_order_.front());
    freed_order_.pop_front();
  }
  return damaged;
}

void Memory::release_all() {
  while (!live_.empty()) release(live_.begin()->first);
}

const Allocation *Memory::find(uintptr_t address) const {
  return find_in(live_, address);
}

bool Memory::was_freed(uintptr_t address) const {
  return find(address) == nullptr && find_in(freed_, address) != nullptr;
}

bool Memory::covers(const Range &range) const {
  const Allocation *allocation = find(range.address);
  return allocation != nullptr &&
         range.bytes <= allocation->bytes - (range.address - allocation->address);
}

std::string Memory::describe(uintptr_t address) const {
  if (const Allocation *live = find(address)) {
    return hex(address) + ", byte " + std::to_string(address - live->address) + " of " +
           text(*live);
  }
  if (const Allocation *freed = find_in(freed_, address)) {
    return hex(address) + ", byte " + std::to_string(address - freed->address) + " of " +
           text(*freed) + ", which was freed";
  }
  for (const auto &[first, a] : live_) {
    const auto mapping = reinterpret_cast<uintptr_t>(a.mapping);
    if (a.mapping == nullptr || address < mapping || address >= mapping + a.mapping_bytes) continue;
    return hex(address) + ", " +
           (address < first
                ? std::to_string(first - address) + " bytes before "
                : std::to_string(address - first - a.bytes) + " bytes past the end of ") +
           text(a);
  }
  return hex(address) + ", in no allocation";
}

}  // namespace soft

using soft::Allocation;
using soft::MemoryKind;
using soft::state;

namespace {

// Freeing what work not yet run names is the caller's mistake, though the real driver may wait.
CUresult free_memory(soft::Call &call, uintptr_t address, MemoryKind kind) {
  const auto &live = state().memory.live();
  const auto found = live.find(address);
  if (found == live.end() || found->second.kind != kind) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE,
                       "begins no such allocation: " + state().memory.describe(address));
  }
  const Allocation allocation = found->second;
  SOFT_TRY(soft::run_default_stream(call));  // its copies and memsets count as synchronous calls
  const std::string pending = soft::pending_use({allocation.address, allocation.bytes});
  if (!pending.empty()) {
    call.misuse(CUDA_SUCCESS, "frees " + state().memory.describe(address) +
                                  ", which work not yet run names: " + pending);
  }
  const std::string damage = state().memory.release(address);
  if (!damage.empty()) call.misuse(CUDA_SUCCESS, damage);
  return CUDA_SUCCESS;
}

CUresult allocate_host(soft::Call &call, void **data, size_t bytes, unsigned flags) {
  SOFT_TRY(call.refuse_during_capture());
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const Allocation *a =
      state().memory.allocate(MemoryKind::kPinned, bytes, flags, call.context->handle);
  if (a == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *data = reinterpret_cast<void *>(a->address);
  return CUDA_SUCCESS;
}

}  // namespace

SOFT_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  SOFT_CALL(cuMemAlloc, kContext);
  SOFT_TRY(call.refuse_during_capture());
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  soft::Memory &memory = state().memory;
  const size_t available = state().device.total_memory_bytes - memory.device_bytes();
  if (bytes > available || soft::Memory::occupied_bytes(bytes) > available) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const Allocation *a = memory.allocate(MemoryKind::kDevice, bytes, 0, call.context->handle);
  if (a == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = a->address;
  uint64_t &peak = state().counters["device_bytes_peak"];
  if (memory.device_bytes() > peak) peak = memory.device_bytes();
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  SOFT_CALL(cuMemFree, kContext);
  SOFT_TRY(call.refuse_during_capture());
  if (address == 0) return CUDA_SUCCESS;
  return free_memory(call, address, MemoryKind::kDevice);
}

SOFT_EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
  SOFT_CALL(cuMemGetInfo, kContext);
  *total_bytes = state().device.total_memory_bytes;
  *free_bytes = *total_bytes - state().memory.device_bytes();
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes,
                                             CUdeviceptr address) {
  SOFT_CALL(cuMemGetAddressRange, kContext);
  const Allocation *a = state().memory.find(address);
  if (a == nullptr) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = a->address;
  if (bytes != nullptr) *bytes = a->bytes;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuMemHostAlloc(void **data, size_t bytes, unsigned flags) {
  SOFT_CALL(cuMemHostAlloc, kContext);
  return allocate_host(call, data, bytes, flags);
}

SOFT_EXPORT CUresult cuMemAllocHost_v2(void **data, size_t bytes) {
  SOFT_CALL(cuMemAllocHost, kContext);
  return allocate_host(call, data, bytes, 0);
}

SOFT_EXPORT CUresult cuMemFreeHost(void *data) {
  SOFT_CALL(cuMemFreeHost, kContext);
  SOFT_TRY(call.refuse_during_capture());
  return free_memory(call, reinterpret_cast<uintptr_t>(data), MemoryKind::kPinned);
}

SOFT_EXPORT CUresult cuMemHostRegister_v2(void *data, size_t bytes, unsigned flags) {
  SOFT_CALL(cuMemHostRegister, kContext);
  SOFT_TRY(call.refuse_during_capture());
  if (data == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const auto first = reinterpret_cast<uintptr_t>(data);
  for (const auto &[address, a] : state().memory.live()) {
    if (address < first + bytes && first < address + a.bytes) {
      return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    }
  }
  state().memory.add_registered(first, bytes, flags, call.context->handle);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuMemHostUnregister(void *data) {
  SOFT_CALL(cuMemHostUnregister, kContext);
  SOFT_TRY(call.refuse_during_capture());
  return free_memory(call, reinterpret_cast<uintptr_t>(data), MemoryKind::kRegistered);
}

SOFT_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *data, unsigned) {
  SOFT_CALL(cuMemHostGetDevicePointer, kContext);
  const Allocation *a = state().memory.find(reinterpret_cast<uintptr_t>(data));
  if (a == nullptr || a->kind == MemoryKind::kDevice) return CUDA_ERROR_INVALID_VALUE;
  *address = reinterpret_cast<CUdeviceptr>(data);  // one address space, as on any 64-bit system
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuMemHostGetFlags(unsigned *flags, void *data) {
  SOFT_CALL(cuMemHostGetFlags, kContext);
  const Allocation *a = state().memory.find(reinterpret_cast<uintptr_t>(data));
  if (a == nullptr || a->kind == MemoryKind::kDevice) return CUDA_ERROR_INVALID_VALUE;
  *flags = a->flags;
  return CUDA_SUCCESS;
}
