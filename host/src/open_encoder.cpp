#include "open_encoder.h"

#include "agreement.h"
#include "cpu_encoder.h"
#include "device/encoder.h"
#include "error.h"
#include "session.h"

namespace bitheads {
namespace {

void check_options(const Options &options) {
  if (options.threads < 0 || options.max_batch_tokens < 0) {
    fail(Status::invalid_input, "options: got ", options.threads, " threads and ",
         options.max_batch_tokens,
         " tokens a batch, expected 0 or more: 0 is all cores, and what serves the backend best.");
  }
}

fs::path plugins_folder(const Options &options) {
  return options.plugins.empty() ? default_plugins() : fs::path(options.plugins);
}

class DeviceOpener {
 public:
  DeviceOpener(ov::Core &core, const fs::path &folder, const Manifest &manifest,
               const Options &options)
      : core_(core), folder_(folder), manifest_(manifest), options_(options) {}

  std::unique_ptr<Encoder> open(const Plugin &plugin, const std::string &backend) const {
    DeviceOptions wanted;
    wanted.plugin = plugin;
    wanted.backend = backend;
    wanted.device = options_.device;
    wanted.code =
        options_.device_code.empty() ? default_device_code() : fs::path(options_.device_code);
    if (options_.max_batch_tokens > 0) wanted.limits.max_batch_tokens = options_.max_batch_tokens;
    TableRows rows{manifest_.vocabulary, manifest_.token_types};
    if (rows.vocabulary == 0) rows = find_table_rows(core_, folder_ / "encoder.onnx");
    return std::make_unique<DeviceEncoder>(folder_, manifest_, rows, wanted);
  }

  // A backend that was asked for by name, of the first plugin that has it and works. Throws what
  // is wrong with each.
  std::unique_ptr<Encoder> open_named(const std::string &backend) const {
    std::vector<Error> failures;
    std::string others;
    for (const fs::path &path : find_plugins(plugins_folder(options_), backend)) {
      try {
        const Plugin plugin = load_plugin(path);
        if (const auto its_name = plugin.find_backend(backend)) return open(plugin, *its_name);
        for (const std::string &other : plugin.backends()) {
          others += (others.empty() ? "" : ", ") + other;
        }
      } catch (const Error &error) {
        failures.push_back(error);
      }
    }
    if (failures.empty()) {
      fail(Status::invalid_input, "backend: got '", backend, "', expected one that plugins in ",
           plugins_folder(options_), " have: ", others, ".");
    }
    std::string why;
    for (const Error &error : failures)
      why += (why.empty() ? "" : "\n") + std::string(error.what());
    throw Error(failures.front().status(), why);
  }

  // The first backend of any plugin that works, or null, and why.
  OpenedEncoder open_any() const {
    const fs::path folder = plugins_folder(options_);
    const std::vector<fs::path> paths = find_plugins(folder);
    if (paths.empty()) return {nullptr, "no plugin for a GPU in " + folder.string()};
    std::string why;
    const auto add = [&](const std::string &what, const std::exception &error) {
      why += (why.empty() ? "" : "\n") + what + ": " + error.what();
    };
    for (const fs::path &path : paths) {
      std::vector<std::string> backends;
      try {
        backends = load_plugin(path).backends();
      } catch (const Error &error) {
        add(path.filename().string(), error);
      }
      for (const std::string &backend : backends) {
        try {
          return {open(load_plugin(path), backend), ""};
        } catch (const Error &error) {
          add(backend, error);
        }
        if (!has_device()) return {nullptr, why};  // the others would say the same
      }
    }
    return {nullptr, why};
  }

 private:
  bool has_device() const {
    try {
      const Device device(options_.device);
      return true;
    } catch (const Error &) {
      return false;
    }
  }

  ov::Core &core_;
  const fs::path &folder_;
  const Manifest &manifest_;
  const Options &options_;
};

}  // namespace

OpenedEncoder open_encoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                           const Options &options) {
  check_options(options);
  check_min_sign_agreement(options);
  const std::string &precision = options.precision;
  const bool is_of_graph = precision == "auto" || precision == manifest.precision;
  const DeviceOpener on_device(core, folder, manifest, options);
  OpenedEncoder opened;
  if (options.backend != "openvino" && options.backend != "auto") {
    if (!is_of_graph) {
      fail(Status::backend, "precision: got '", precision,
           "', but on a GPU the graph's own types are used: ", manifest.precision,
           ". Pass 'auto', or export the bundle again with --precision ", precision, ".");
    }
    opened.encoder = on_device.open_named(options.backend);
  } else if (options.backend == "auto" && is_of_graph) {
    opened = on_device.open_any();
  }
  if (!opened.encoder) {
    opened.encoder = std::make_unique<CpuEncoder>(core, folder, manifest, options);
  }
  return opened;
}

}  // namespace bitheads
