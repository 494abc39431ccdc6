// Copies and memsets: checked when they are submitted, done when the stream gets to them.
#include <cstring>

#include "driver.h"
#include "graphs.h"
#include "streams.h"

using namespace soft;

namespace {

// What a check found; `status` is success if it may go on.
struct Side {
  CUresult status = CUDA_SUCCESS;
  bool is_pageable = false;
};

std::string bytes_at(const Range &range) {
  return std::to_string(range.bytes) + " bytes at " + state().memory.describe(range.address);
}

Side check_device(const Call &call, const Range &range) {
  if (state().memory.covers(range)) return {};
  return {call.misuse(CUDA_ERROR_INVALID_VALUE, "gets as device memory " + bytes_at(range))};
}

Side check_host(const Call &call, const Range &range) {
  const Allocation *allocation = state().memory.find(range.address);
  if (allocation == nullptr && !state().memory.was_freed(range.address)) {
    return {CUDA_SUCCESS, true};
  }
  if (allocation == nullptr || allocation->kind == MemoryKind::kDevice ||
      !state().memory.covers(range)) {
    return {call.misuse(CUDA_ERROR_INVALID_VALUE, "gets as host memory " + bytes_at(range))};
  }
  return {};
}

Range range_at(const void *data, size_t bytes) {
  return {reinterpret_cast<uintptr_t>(data), bytes};
}

void move(uintptr_t to, uintptr_t from, size_t bytes) {
  memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
}

struct Blocking {
  bool value;
};

CUresult enqueue(Call &call, CUstream handle, Blocking blocking, Operation operation) {
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  SOFT_TRY(submit(call, stream, std::move(operation)));
  if (!blocking.value) return CUDA_SUCCESS;
  count("synchronizations");
  return run_to(call, tail(stream));
}

CUresult refuse_pageable(Call &call, CUstream handle) {
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  count("pageable_async_copies");
  if (stream->capture == nullptr) return CUDA_SUCCESS;
  stream->capture->is_valid = false;
  return call.misuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "captures a copy of pageable memory");
}

CUresult copy_to_device(Call &call, CUdeviceptr to, const void *from, size_t bytes, CUstream stream,
                        Blocking blocking) {
  if (bytes == 0) return CUDA_SUCCESS;
  const Range source = range_at(from, bytes);
  SOFT_TRY(check_device(call, {to, bytes}).status);
  const Side host = check_host(call, source);
  SOFT_TRY(host.status);
  count("bytes_to_device", bytes);
  Operation operation;
  operation.what = std::string(call.name()) + " of " + std::to_string(bytes) + " bytes";
  operation.touches = {{to, bytes}};
  if (host.is_pageable && !blocking.value) {
    // The driver copies pageable memory aside before it returns.
    SOFT_TRY(refuse_pageable(call, stream));
    const auto *begin = static_cast<const uint8_t *>(from);
    auto staged = std::make_shared<std::vector<uint8_t>>(begin, begin + bytes);
    operation.run = [=] {
      memcpy(reinterpret_cast<void *>(to), staged->data(), bytes);
      return CUDA_SUCCESS;
    };
  } else {
    if (!host.is_pageable) operation.touches.push_back(source);
    operation.run = [=] {
      move(to, source.address, bytes);
      return CUDA_SUCCESS;
    };
  }
  return enqueue(call, stream, blocking, std::move(operation));
}

CUresult copy_to_host(Call &call, void *to, CUdeviceptr from, size_t bytes, CUstream stream,
                      Blocking blocking) {
  if (bytes == 0) return CUDA_SUCCESS;
  const Range target = range_at(to, bytes);
  SOFT_TRY(check_device(call, {from, bytes}).status);
  const Side host = check_host(call, target);
  SOFT_TRY(host.status);
  count("bytes_to_host", bytes);
  Operation operation;
  operation.what = std::string(call.name()) + " of " + std::to_string(bytes) + " bytes";
  operation.touches = {{from, bytes}};
  if (!host.is_pageable) operation.touches.push_back(target);
  operation.run = [=] {
    move(target.address, from, bytes);
    return CUDA_SUCCESS;
  };
  if (host.is_pageable && !blocking.value) {
    SOFT_TRY(refuse_pageable(call, stream));
    blocking.value = true;  // the driver returns after the copy
  }
  return enqueue(call, stream, blocking, std::move(operation));
}

CUresult copy_on_device(Call &call, CUdeviceptr to, CUdeviceptr from, size_t bytes,
                        CUstream stream) {
  if (bytes == 0) return CUDA_SUCCESS;
  SOFT_TRY(check_device(call, {to, bytes}).status);
  SOFT_TRY(check_device(call, {from, bytes}).status);
  if (from < to + bytes && to < from + bytes) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE, "copies between ranges that overlap");
  }
  count("bytes_on_device", bytes);
  Operation operation;
  operation.what = std::string(call.name()) + " of " + std::to_string(bytes) + " bytes";
  operation.touches = {{to, bytes}, {from, bytes}};
  operation.run = [=] {
    move(to, from, bytes);
    return CUDA_SUCCESS;
  };
  return enqueue(call, stream, {false}, std::move(operation));
}

template <class T>
CUresult fill(Call &call, CUdeviceptr to, T value, size_t number, CUstream stream) {
  if (number == 0) return CUDA_SUCCESS;
  if (to % sizeof(T) != 0) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets an address that is not aligned");
  }
  const size_t bytes = number * sizeof(T);
  SOFT_TRY(check_device(call, {to, bytes}).status);
  count("bytes_set", bytes);
  Operation operation;
  operation.what = std::string(call.name()) + " of " + std::to_string(bytes) + " bytes";
  operation.touches = {{to, bytes}};
  operation.run = [=] {
    T *data = reinterpret_cast<T *>(to);
    for (size_t i = 0; i < number; ++i) data[i] = value;
    return CUDA_SUCCESS;
  };
  return enqueue(call, stream, {false}, std::move(operation));
}

}  // namespace

SOFT_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  SOFT_CALL(cuMemcpyHtoD, kContext);
  SOFT_TRY(call.refuse_during_capture());
  return copy_to_device(call, to, from, bytes, nullptr, {true});
}

SOFT_EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  SOFT_CALL(cuMemcpyDtoH, kContext);
  SOFT_TRY(call.refuse_during_capture());
  return copy_to_host(call, to, from, bytes, nullptr, {true});
}

SOFT_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  SOFT_CALL(cuMemcpyDtoD, kContext);
  SOFT_TRY(call.refuse_during_capture());
  return copy_on_device(call, to, from, bytes, nullptr);
}

SOFT_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes,
                                          CUstream stream) {
  SOFT_CALL(cuMemcpyHtoDAsync, kContext);
  return copy_to_device(call, to, from, bytes, stream, {false});
}

SOFT_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes,
                                          CUstream stream) {
  SOFT_CALL(cuMemcpyDtoHAsync, kContext);
  return copy_to_host(call, to, from, bytes, stream, {false});
}

SOFT_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                          CUstream stream) {
  SOFT_CALL(cuMemcpyDtoDAsync, kContext);
  return copy_on_device(call, to, from, bytes, stream);
}

#define SOFT_MEMSET(bits, T)                                                          \
  SOFT_EXPORT CUresult cuMemsetD##bits##_v2(CUdeviceptr to, T value, size_t number) { \
    SOFT_CALL(cuMemsetD##bits, kContext);                                             \
    SOFT_TRY(call.refuse_during_capture());                                           \
    return fill<T>(call, to, value, number, nullptr);                                 \
  }                                                                                   \
  SOFT_EXPORT CUresult cuMemsetD##bits##Async(CUdeviceptr to, T value, size_t number, \
                                              CUstream stream) {                      \
    SOFT_CALL(cuMemsetD##bits##Async, kContext);                                      \
    return fill<T>(call, to, value, number, stream);                                  \
  }
SOFT_MEMSET(8, unsigned char)
SOFT_MEMSET(16, unsigned short)
SOFT_MEMSET(32, unsigned int)
