#include "device/code.h"

#include <dlfcn.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "bitheads/kernels.h"
#include "error.h"
#include "json.h"

namespace bitheads {
namespace {

constexpr const char *kFix =
    "Make it with `bitheads device-code` in a clone of this version, which needs no GPU, or take "
    "bitheads.fatbin and bitheads.json out of the Python package, and put both beside the library "
    "or name the first in device_code.";

// Bytes of dynamic shared memory that a kernel may use without asking for them.
constexpr uint32_t kDefaultSharedBytes = 48 << 10;
constexpr int kMaxDynamicSharedBytes = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

struct About {
  int64_t abi_version;
  std::string sha256;
};

About read_about(const fs::path &path, const std::string &what) {
  const fs::path beside = fs::path(path).replace_extension(".json");
  const std::string text = read_file(beside, Status::backend, what);
  try {
    const Json about = parse_json(text);
    return {about.at("abi_version").get<int64_t>(), about.at("sha256").get<std::string>()};
  } catch (const Json::exception &error) {
    fail(Status::backend, what, ": ", beside, " cannot be read (", error.what(), "). ", kFix);
  }
}

}  // namespace

fs::path default_device_code() {
  Dl_info info = {};
  // The address of any function of the library finds its file.
  if (dladdr(reinterpret_cast<const void *>(&default_device_code), &info) == 0 ||
      info.dli_fname == nullptr) {
    return "bitheads.fatbin";
  }
  return fs::path(info.dli_fname).parent_path() / "bitheads.fatbin";
}

std::string read_device_code(const fs::path &path) {
  const std::string what = "device code " + path.string();
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    fail(Status::backend, what, ": no such file, expected the compiled CUDA kernels. ", kFix);
  }
  const About about = read_about(path, what);
  std::string content = read_file(path, Status::backend, what);
  if (about.abi_version != bh_abi_version()) {
    fail(Status::backend, what, ": got ABI version ", about.abi_version, ", expected ",
         bh_abi_version(), ". ", kFix);
  }
  if (const std::string got = sha256_of(content); got != about.sha256) {
    fail(Status::backend, what, ": was changed: got sha256 ", got.substr(0, 12), "..., expected ",
         about.sha256.substr(0, 12), ".... ", kFix);
  }
  return content;
}

DeviceCode::DeviceCode(const Device &device, const fs::path &path) : device_(device) {
  const std::string content = read_device_code(path);
  const Device::Current current(
      device, "loading the device code, which is for compute capability 8.0 and newer");
  CudaHandle module = nullptr;
  device.check(device.driver().load_module(&module, content.data()));
  module_ = {device, module, device.driver().unload_module};
}

void DeviceCode::launch(const bh_cuda_launch &launch, CudaHandle stream) {
  if (std::find(std::begin(launch.grid), std::end(launch.grid), 0U) != std::end(launch.grid)) {
    return;
  }
  const Driver &driver = device_.driver();
  CudaHandle &function = functions_[launch.kernel];
  if (function == nullptr) {
    device_.check(driver.get_function(&function, module_.get(), launch.kernel));
    if (launch.shared_bytes > kDefaultSharedBytes) {
      device_.check(driver.set_function_attribute(function, kMaxDynamicSharedBytes,
                                                  static_cast<int>(launch.shared_bytes)));
    }
  }
  void *arguments[] = {const_cast<unsigned char *>(launch.args)};
  device_.check(driver.launch_kernel(function, launch.grid[0], launch.grid[1], launch.grid[2],
                                     launch.block[0], launch.block[1], launch.block[2],
                                     launch.shared_bytes, stream, arguments, nullptr));
}

}  // namespace bitheads
