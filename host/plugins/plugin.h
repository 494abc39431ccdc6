// What the plugins share: a session as a class, of which plugin.cpp makes the C table of
// bitheads/device_session.h; failures with a status; libraries that are opened at run time.
#ifndef BITHEADS_PLUGINS_PLUGIN_H
#define BITHEADS_PLUGINS_PLUGIN_H

#include <cstdint>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bitheads/device_session.h"

namespace bitheads::plugins {

// Becomes a status and the thread's last error.
class Failure : public std::runtime_error {
 public:
  Failure(bitheads_device_status status, const std::string &message)
      : std::runtime_error(message), status(status) {}

  const bitheads_device_status status;
};

// fail(BITHEADS_DEVICE_FAILED, "backend: got ", name, ...);
template <class... Parts>
[[noreturn]] void fail(bitheads_device_status status, const Parts &...parts) {
  std::ostringstream message;
  message.imbue(std::locale::classic());
  (message << ... << parts);
  throw Failure(status, message.str());
}

// "a, b, c"
std::string join(const std::vector<std::string> &parts);

// A library's handle; it stays loaded, as its threads and its caches may outlive a session.
// Args:
//   variable: of the environment, which names the file instead.
//   names: where the linker looks, in this order.
//   what: it is, for people, such as "ONNX Runtime 1.21 or later".
void *open_library(const char *variable, const std::vector<std::string> &names,
                   const std::string &what);

// Of an open library; null if it is not there.
void *find_symbol(void *library, const char *name);

}  // namespace bitheads::plugins

// An open session. All functions may throw.
struct bitheads_device_session {
  virtual ~bitheads_device_session() = default;
  virtual std::int64_t max_rows(std::int64_t seq) const = 0;
  virtual void bind(const std::uint64_t *inputs, const std::uint64_t *outputs) = 0;
  virtual void enqueue(std::int64_t rows, std::int64_t seq, bool keep) = 0;
  virtual void forget(std::int64_t rows, std::int64_t seq) = 0;

  bitheads_device_limits limits{};

 protected:
  void set_inputs(const std::vector<std::string> &names);
  void set_type(bitheads_device_type type);

  std::vector<std::string> input_names;

 private:
  std::vector<const char *> input_pointers_;
};

namespace bitheads::plugins {

// What each plugin defines; see bitheads_device_sessions.
extern const char *const backends[];
extern const char *const software_backend;
extern const char *const plan_flavour;
std::string library_version();
std::unique_ptr<bitheads_device_session> open_session(const bitheads_device_model &model,
                                                      const bitheads_device &device);

}  // namespace bitheads::plugins

#endif
