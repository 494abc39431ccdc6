#include "tensorrt_library.h"

#include <new>

#include "plugin.h"

namespace bitheads::plugins {
namespace {

#define BITHEADS_TEXT_OF(number) #number
#define BITHEADS_TEXT(number) BITHEADS_TEXT_OF(number)

struct Version {
  int major;
  int minor;
};

constexpr Version kHeaders = {NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR};

#ifdef BITHEADS_TENSORRT_RTX

constexpr const char *kVariable = "BITHEADS_TENSORRT_RTX_LIBRARY";
constexpr const char *kFile = "libtensorrt_rtx.so.1";
constexpr const char *kName = "TensorRT-RTX";

// 1.4 has the interfaces of TensorRT 10.14, those from 1.5 on that of 11.1.
constexpr int kFirstNew = 5;

#ifdef TRT_MAJOR_RTX
constexpr Version kOldest = {TRT_MAJOR_RTX, TRT_MINOR_RTX};
#else
// Headers of TensorRT itself.
constexpr Version kOldest = {1, kHeaders.major == 10 ? kFirstNew - 1 : kFirstNew};
static_assert(kHeaders.major > 10 || (kHeaders.major == 10 && kHeaders.minor == 14),
              "TensorRT-RTX 1.4 has the interfaces of TensorRT 10.14, and none those of these "
              "headers");
#endif

bool fits(Version library) {
  return library.major == kOldest.major && library.minor >= kOldest.minor &&
         (library.minor >= kFirstNew) == (kOldest.minor >= kFirstNew);
}

#else

constexpr const char *kVariable = "BITHEADS_TENSORRT_LIBRARY";
constexpr const char *kFile = "libnvinfer.so." BITHEADS_TEXT(NV_TENSORRT_MAJOR);
constexpr const char *kName = "TensorRT";
constexpr Version kOldest = kHeaders;
static_assert(kHeaders.major >= 10, "TensorRT's headers are older than version 10");

// Within a major version functions are only added.
bool fits(Version library) {
  return library.major == kOldest.major && library.minor >= kOldest.minor;
}

#endif

std::string expected_versions() {
  std::string text = std::to_string(kOldest.major) + "." + std::to_string(kOldest.minor);
#ifdef BITHEADS_TENSORRT_RTX
  if (kOldest.minor < kFirstNew) {
    return kOldest.minor == kFirstNew - 1 ? text
                                          : text + " to " + std::to_string(kOldest.major) + "." +
                                                std::to_string(kFirstNew - 1);
  }
#endif
  return text + " or a later " + std::to_string(kOldest.major) + ".x";
}

}  // namespace

void Logger::log(Severity severity, const nvinfer1::AsciiChar *message) noexcept {
  if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    last_ = message;
  } catch (const std::bad_alloc &) {
    last_ = "out of memory";  // short enough to need none
  }
}

void Logger::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  last_.clear();
}

std::string Logger::last() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_.empty() ? "it did not say why" : last_;
}

const TensorRt &TensorRt::open() {
  // Never destroyed, as its library stays loaded.
  static const TensorRt &opened = *new TensorRt();
  return opened;
}

TensorRt::TensorRt() : library_(open_library(kVariable, {kFile}, kName)) {
  // Plain functions of numbers: they can be called whatever the version.
  int numbers[4] = {};
  const char *const names[4] = {"getInferLibMajorVersion", "getInferLibMinorVersion",
                                "getInferLibPatchVersion", "getInferLibBuildVersion"};
  for (int i = 0; i < 4; ++i) {
    const auto get = reinterpret_cast<std::int32_t (*)()>(find_symbol(library_, names[i]));
    if (get == nullptr) {
      fail(BITHEADS_DEVICE_MISFIT, kName, ": the library has no ", names[i], ", expected version ",
           expected_versions(), ". Name the file ", kFile, " of such a one in ", kVariable, ".");
    }
    numbers[i] = get();
    version_ += (i == 0 ? "" : ".") + std::to_string(numbers[i]);
  }
  if (!fits({numbers[0], numbers[1]})) {
    fail(BITHEADS_DEVICE_MISFIT, kName, ": got a library of version ", version_, ", expected ",
         expected_versions(), ", as this plugin was compiled with the headers of ", kHeaders.major,
         ".", kHeaders.minor, ". Install such a one, or compile the plugin with headers of ",
         numbers[0], ".", numbers[1], ".");
  }
}

std::unique_ptr<nvinfer1::IRuntime> TensorRt::make_runtime(Logger &logger) const {
  const auto create = reinterpret_cast<void *(*)(void *, std::int32_t)>(
      find_symbol(library_, "createInferRuntime_INTERNAL"));
  logger.clear();
  auto *runtime = create == nullptr
                      ? nullptr
                      : static_cast<nvinfer1::IRuntime *>(create(&logger, NV_TENSORRT_VERSION));
  if (runtime == nullptr) {
    fail(BITHEADS_DEVICE_FAILED, kName, " ", version_, " cannot start: ", logger.last(),
         ". It needs a driver that is new enough for it.");
  }
  return std::unique_ptr<nvinfer1::IRuntime>(runtime);
}

}  // namespace bitheads::plugins
