// Plugins: shared libraries that give an encoder on a GPU behind the table of device_session.h.
#ifndef BITHEADS_HOST_DEVICE_PLUGIN_H
#define BITHEADS_HOST_DEVICE_PLUGIN_H

#include <optional>
#include <string>
#include <vector>

#include "bitheads/device_session.h"
#include "files.h"

namespace bitheads {

// A loaded plugin. It stays loaded to the end of the process: what it links starts threads.
struct Plugin {
  fs::path path;
  const bitheads_device_sessions *table;

  // What the last call of this thread failed with.
  std::string last_error() const { return table->last_error(); }
  std::vector<std::string> backends() const;
  // What the plugin calls a backend: one that it has, or that of its plans, such as "tensorrt-rtx".
  // Nothing if it has no such backend.
  std::optional<std::string> find_backend(const std::string &name) const;
};

// Where plugins are if nobody says so: the folder of this library.
fs::path default_plugins();

// Files of plugins that may have a backend, libbitheads_NAME.so of the folder, where NAME begins
// with what is before the first - of the backend's name. Throws Error(invalid_input) for what is no
// name, Error(backend) if there are none.
std::vector<fs::path> find_plugins(const fs::path &folder, const std::string &backend);
// Files of the plugins of ours, of which `auto` chooses, the fastest first.
std::vector<fs::path> find_plugins(const fs::path &folder);

// Throws Error(backend) if it cannot be loaded, or is of another version.
Plugin load_plugin(const fs::path &path);

}  // namespace bitheads

#endif
