// What tests ask of the software driver itself. tests/device/software_driver.py is its other half.
#include <sstream>

#include "driver.h"
#include "graphs.h"
#include "streams.h"

namespace soft {

void report_stub(const char *name) {
  std::lock_guard<std::mutex> lock(state().mutex);
  report(std::string(name) + " is not modelled by the software driver");
}

int not_supported() {
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace soft

using namespace soft;

namespace {

// Each stays valid until the next call of the function that gave it.
const char *keep(std::string *kept, std::string text) {
  *kept = std::move(text);
  return kept->c_str();
}

}  // namespace

// As if the process had just begun, though no handle or address comes a second time. Work that has
// not run is forgotten.
SOFT_EXPORT void soft_reset() {
  std::lock_guard<std::mutex> lock(state().mutex);
  State &s = state();
  s.memory.release_all();
  s.queues.clear();
  s.streams.clear();
  s.events.clear();
  s.graphs.clear();
  s.graph_execs.clear();
  s.functions.clear();
  s.modules.clear();
  s.contexts.clear();
  s.primary = nullptr;
  s.device = Device{};
  s.is_eager = false;
  s.random.reset();
  s.reports.clear();
  s.counters.clear();
  s.injections.clear();
  context_stack().clear();
}

SOFT_EXPORT void soft_set_total_memory(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().device.total_memory_bytes = bytes;
}

SOFT_EXPORT void soft_set_compute_capability(int major, int minor) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().device.major = major;
  state().device.minor = minor;
}

// Eager: work runs when it is submitted, as early as a device could; else as late as it could.
SOFT_EXPORT void soft_set_eager(int is_eager) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().is_eager = is_eager != 0;
}

// Work runs at any time that streams and events allow, chosen by the seed; 0: as late as possible.
SOFT_EXPORT void soft_set_random(uint64_t seed) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().random.reset(seed == 0 ? nullptr : new std::mt19937_64(seed));
}

// `times` calls of this name, after `calls_until` more (0: the next), give `status`. The name is
// that of an entry point without _v2, or "execution" for a kernel that fails on the device.
SOFT_EXPORT void soft_fail(const char *name, uint64_t calls_until, uint64_t times, int status) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().injections[name] = {calls_until, times, static_cast<CUresult>(status)};
}

SOFT_EXPORT uint64_t soft_counter(const char *name) {
  std::lock_guard<std::mutex> lock(state().mutex);
  const auto found = state().counters.find(name);
  return found == state().counters.end() ? 0 : found->second;
}

SOFT_EXPORT const char *soft_counters() {  // lines "name value"
  std::lock_guard<std::mutex> lock(state().mutex);
  static std::string kept;
  std::ostringstream text;
  for (const auto &[name, value] : state().counters) text << name << ' ' << value << '\n';
  return keep(&kept, text.str());
}

SOFT_EXPORT void soft_reset_counters() {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().counters.clear();
  state().counters["device_bytes_peak"] = state().memory.device_bytes();
}

// One misuse a line; they are forgotten.
SOFT_EXPORT const char *soft_take_errors() {
  std::lock_guard<std::mutex> lock(state().mutex);
  static std::string kept;
  std::string text;
  for (const auto &[address, allocation] : state().memory.live()) {
    const std::string damage = state().memory.damage(allocation);
    if (!damage.empty()) text += damage + '\n';
  }
  for (const std::string &what : state().reports) text += what + '\n';
  state().reports.clear();
  return keep(&kept, std::move(text));
}

SOFT_EXPORT void soft_report(const char *what) {
  std::lock_guard<std::mutex> lock(state().mutex);
  report(what);
}

// What still lives, as lines "name value"; all zero after a program that cleans up.
SOFT_EXPORT const char *soft_live() {
  std::lock_guard<std::mutex> lock(state().mutex);
  static std::string kept;
  size_t num_device = 0, num_host = 0, pending = 0;
  for (const auto &[address, allocation] : state().memory.live()) {
    ++(allocation.kind == MemoryKind::kDevice ? num_device : num_host);
  }
  for (const auto &stream : state().queues) pending += stream->queue.size();
  std::ostringstream text;
  text << "device_allocations " << num_device << "\ndevice_bytes " << state().memory.device_bytes()
       << "\nhost_allocations " << num_host << "\nstreams " << state().streams.all().size()
       << "\nevents " << state().events.all().size() << "\nmodules " << state().modules.all().size()
       << "\ngraphs " << state().graphs.all().size() << "\ngraph_execs "
       << state().graph_execs.all().size() << "\ncontexts " << state().contexts.all().size()
       << "\npending_operations " << pending << '\n';
  return keep(&kept, text.str());
}
