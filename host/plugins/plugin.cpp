#include "plugin.h"

#include <dlfcn.h>

#include <cstdlib>
#include <new>
#include <utility>

namespace bitheads::plugins {
namespace {

constexpr const char *kNoHostMemory = "not enough memory on the host.";

struct LastError {
  std::string message;
  const char *text = "";

  void set(const char *said) noexcept {
    try {
      message = said;
      text = message.c_str();
    } catch (const std::bad_alloc &) {
      text = kNoHostMemory;
    }
  }
};

thread_local LastError last_error_of_thread;

// Nothing is thrown past this.
template <class Function>
bitheads_device_status guard(const Function &function) noexcept {
  try {
    function();
    return BITHEADS_DEVICE_OK;
  } catch (const Failure &error) {
    last_error_of_thread.set(error.what());
    return error.status;
  } catch (const std::bad_alloc &) {
    last_error_of_thread.set(kNoHostMemory);
  } catch (const std::exception &error) {
    last_error_of_thread.set(error.what());
  } catch (...) {
    last_error_of_thread.set("an error of a type that is not known.");
  }
  return BITHEADS_DEVICE_FAILED;
}

const char *library_version_or_null() noexcept {
  static thread_local std::string version;
  const auto status = guard([] { version = library_version(); });
  return status == BITHEADS_DEVICE_OK ? version.c_str() : nullptr;
}

const char *last_error() noexcept {
  return last_error_of_thread.text;
}

bitheads_device_status open(const bitheads_device_model *model, const bitheads_device *device,
                            bitheads_device_session **session) noexcept {
  *session = nullptr;
  return guard([&] { *session = open_session(*model, *device).release(); });
}

const bitheads_device_limits *limits(const bitheads_device_session *session) noexcept {
  return &session->limits;
}

std::int64_t max_rows(const bitheads_device_session *session, std::int64_t seq) noexcept {
  std::int64_t rows = 0;
  guard([&] { rows = session->max_rows(seq); });
  return rows;
}

bitheads_device_status bind(bitheads_device_session *session, const std::uint64_t *inputs,
                            const std::uint64_t *outputs) noexcept {
  return guard([&] { session->bind(inputs, outputs); });
}

bitheads_device_status enqueue(bitheads_device_session *session, std::int64_t rows,
                               std::int64_t seq, std::int32_t keep) noexcept {
  return guard([&] { session->enqueue(rows, seq, keep != 0); });
}

void forget(bitheads_device_session *session, std::int64_t rows, std::int64_t seq) noexcept {
  guard([&] { session->forget(rows, seq); });
}

void close(bitheads_device_session *session) noexcept {
  delete session;
}

}  // namespace

std::string join(const std::vector<std::string> &parts) {
  std::string joined;
  for (const std::string &part : parts) joined += (joined.empty() ? "" : ", ") + part;
  return joined;
}

void *open_library(const char *variable, const std::vector<std::string> &names,
                   const std::string &what) {
  const char *named = std::getenv(variable);
  const bool is_named = named != nullptr && *named != '\0';
  std::string said;
  for (const std::string &name : is_named ? std::vector<std::string>{named} : names) {
    if (void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char *why = dlerror();
    // The first name is the one that should be there.
    if (said.empty()) said = why != nullptr ? why : "the linker does not say why";
  }
  fail(BITHEADS_DEVICE_FAILED, what, " cannot be loaded: ", said, ". Put its folder into ",
       "LD_LIBRARY_PATH, or the path of its file into ", variable, ".");
}

void *find_symbol(void *library, const char *name) {
  return dlsym(library, name);
}

}  // namespace bitheads::plugins

void bitheads_device_session::set_inputs(const std::vector<std::string> &names) {
  input_names = names;
  input_pointers_.clear();
  for (const std::string &name : input_names) input_pointers_.push_back(name.c_str());
  limits.inputs = input_pointers_.data();
  limits.num_inputs = input_pointers_.size();
}

void bitheads_device_session::set_type(bitheads_device_type type) {
  limits.type = type;
  limits.precision = type == BITHEADS_DEVICE_FLOAT16 ? "fp16" : "fp32";
}

extern "C" __attribute__((visibility("default"))) const bitheads_device_sessions *
bitheads_device_sessions_v1(void) {
  namespace plugins = bitheads::plugins;
  static const bitheads_device_sessions table = {
      BITHEADS_DEVICE_SESSION_VERSION,
      plugins::backends,
      plugins::software_backend,
      plugins::plan_flavour,
      plugins::library_version_or_null,
      plugins::last_error,
      plugins::open,
      plugins::limits,
      plugins::max_rows,
      plugins::bind,
      plugins::enqueue,
      plugins::forget,
      plugins::close,
  };
  return &table;
}
