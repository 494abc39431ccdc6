// What every entry point of the software CUDA driver shares: one lock, the current context, what
// went wrong, what was counted.
//
// One device. Work is recorded when it is submitted and runs when something waits for it, as late
// as the driver API allows: a program that reads a result too early reads 0xCB.
#ifndef BITHEADS_TESTS_SOFTWARE_CUDA_DRIVER_H
#define BITHEADS_TESTS_SOFTWARE_CUDA_DRIVER_H

#include <cuda.h>

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "memory.h"

#define SOFT_EXPORT extern "C" __attribute__((visibility("default")))

namespace soft {

// Handles are numbers that never come again: a stale one is recognized, never followed.
template <class Handle, class T>
class Handles {
 public:
  Handle add(std::shared_ptr<T> object) {
    const Handle handle = reinterpret_cast<Handle>(next() += 16);
    objects_[handle] = std::move(object);
    return handle;
  }
  std::shared_ptr<T> find(Handle handle) const {
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  void remove(Handle handle) { objects_.erase(handle); }
  void clear() { objects_.clear(); }
  const std::map<Handle, std::shared_ptr<T>> &all() const { return objects_; }

 private:
  static uintptr_t &next() {
    static uintptr_t handle = 0x50F7'0000'0000;  // user space, but mapped by nobody
    return handle;
  }

  std::map<Handle, std::shared_ptr<T>> objects_;
};

struct Stream;

struct Context {
  CUcontext handle = nullptr;
  bool is_primary = false;
  unsigned flags = 0;
  unsigned references = 1;
  CUresult sticky = CUDA_SUCCESS;  // after a fault on the device every call gives this
  std::shared_ptr<Stream> default_stream;
  std::shared_ptr<Stream> per_thread_stream;
};

struct Event;
struct Module;
struct Function;
struct Graph;
struct GraphExec;

struct Injection {
  uint64_t calls_until = 0;
  uint64_t times = 1;
  CUresult status = CUDA_SUCCESS;
};

struct Device {
  int major = 8, minor = 6;
  size_t total_memory_bytes = size_t{4} << 30;
};

struct State {
  std::mutex mutex;
  bool is_initialized = false;
  Device device;
  Memory memory;
  Handles<CUcontext, Context> contexts;
  CUcontext primary = nullptr;
  Handles<CUstream, Stream> streams;
  std::vector<std::shared_ptr<Stream>> queues;  // of live streams and of destroyed ones with work
  Handles<CUevent, Event> events;
  Handles<CUmodule, Module> modules;
  Handles<CUfunction, Function> functions;
  Handles<CUgraph, Graph> graphs;
  Handles<CUgraphExec, GraphExec> graph_execs;

  // One thread runs work at a time; the lock is released while a kernel or host function runs.
  bool is_executing = false;
  std::condition_variable stopped_executing;
  bool is_eager = false;
  // If set, work also runs at random between its submission and the wait for it.
  std::unique_ptr<std::mt19937_64> random;

  std::vector<std::string> reports;
  std::map<std::string, uint64_t> counters;
  std::map<std::string, Injection> injections;
};

State &state();

// Misuse that a test must hear of, whether or not the real driver would notice.
void report(const std::string &what);
void count(const std::string &name, uint64_t amount = 1);
std::string hex(uintptr_t value);

// The status injected for this call of `name`, or success.
CUresult injected(const std::string &name);

std::vector<CUcontext> &context_stack();  // of this thread
std::shared_ptr<Context> current_context();

// Begins every entry point: takes the lock, counts the call, and says whether it may go on.
class Call {
 public:
  enum Needs { kNothing, kInitialized, kContext };

  Call(const char *name, Needs needs);

  CUresult status = CUDA_SUCCESS;
  std::shared_ptr<Context> context;
  std::unique_lock<std::mutex> lock;

  // For calls that are unsafe while a stream is captured: they fail and invalidate the capture.
  CUresult refuse_during_capture();
  // Reports the misuse and gives `status`.
  CUresult misuse(CUresult status, const std::string &what) const;
  const char *name() const { return name_; }

 private:
  const char *name_;
};

#define SOFT_CALL(name, needs)                         \
  ::soft::Call call(#name, ::soft::Call::Call::needs); \
  if (call.status != CUDA_SUCCESS) return call.status

#define SOFT_TRY(expression)                                           \
  do {                                                                 \
    if (const CUresult soft_status = (expression)) return soft_status; \
  } while (false)

}  // namespace soft

#endif
