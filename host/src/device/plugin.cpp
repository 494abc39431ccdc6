#include "device/plugin.h"

#include <dlfcn.h>

#include <algorithm>

#include "device/code.h"
#include "error.h"

namespace bitheads {
namespace {

constexpr const char *kFunction = "bitheads_device_sessions_v1";
// Of which `auto` chooses, the fastest first.
constexpr const char *kPlugins[] = {"tensorrt", "tensorrt_rtx", "onnxruntime"};

fs::path file_of(const fs::path &folder, const std::string &name) {
  return folder / ("libbitheads_" + name + ".so");
}

bool is_file(const fs::path &path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_name(const std::string &backend) {
  return !backend.empty() &&
         backend.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

}  // namespace

std::vector<std::string> Plugin::backends() const {
  std::vector<std::string> names;
  for (const char *const *name = table->backends; *name != nullptr; ++name)
    names.emplace_back(*name);
  return names;
}

std::optional<std::string> Plugin::find_backend(const std::string &name) const {
  const std::vector<std::string> known = backends();
  const auto is = [&](const char *one) { return one != nullptr && name == one; };
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  if (is(table->software_backend)) return name;
  if (is(table->plan_flavour) && !known.empty()) return known.front();
  return std::nullopt;
}

fs::path default_plugins() {
  return default_device_code().parent_path();
}

std::vector<fs::path> find_plugins(const fs::path &folder, const std::string &backend) {
  if (!is_name(backend)) {
    fail(Status::invalid_input, "backend: got '", backend.substr(0, 80),
         "', expected auto, openvino, or that of a plugin, such as tensorrt, tensorrt-rtx or "
         "onnxruntime-cuda.");
  }
  const std::string begin = "libbitheads_" + backend.substr(0, backend.find('-'));
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool is_its = name.rfind(begin, 0) == 0 && it->path().extension() == ".so" &&
                        (name[begin.size()] == '.' || name[begin.size()] == '_');
    if (is_its && is_file(it->path())) found.push_back(it->path());
  }
  if (found.empty()) {
    fail(Status::backend, "backend: got '", backend, "', but there is no plugin ", begin, ".so in ",
         folder,
         ". Build it (docs/cpp.md, Plugins), put it there or say in `plugins` where it is; or ask "
         "for the backend openvino.");
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<fs::path> find_plugins(const fs::path &folder) {
  std::vector<fs::path> found;
  for (const char *name : kPlugins) {
    if (const fs::path path = file_of(folder, name); is_file(path)) found.push_back(path);
  }
  return found;
}

Plugin load_plugin(const fs::path &path) {
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char *why = dlerror();
    fail(Status::backend, "plugin ", path, ": cannot be loaded (", why == nullptr ? "" : why,
         "). Say in LD_LIBRARY_PATH where the libraries are that it links, or install them.");
  }
  const auto function =
      reinterpret_cast<bitheads_device_sessions_function>(dlsym(library, kFunction));
  if (function == nullptr) {
    fail(Status::backend, "plugin ", path, ": has no ", kFunction,
         ", expected a plugin of bitheads " BITHEADS_VERSION
         ". Build both from the same version of the sources.");
  }
  const bitheads_device_sessions *table = function();
  if (table == nullptr) {
    fail(Status::backend, "plugin ", path,
         ": says that it cannot be used here. Look at the versions of the libraries it links.");
  }
  if (table->version != BITHEADS_DEVICE_SESSION_VERSION) {
    fail(Status::backend, "plugin ", path, ": got version ", table->version,
         " of the table of device sessions, expected ", BITHEADS_DEVICE_SESSION_VERSION,
         ". Build both from the same version of the sources.");
  }
  return {path, table};
}

}  // namespace bitheads
