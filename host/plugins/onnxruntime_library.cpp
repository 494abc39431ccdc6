#include "onnxruntime_library.h"

#include <algorithm>
#include <cstdlib>

#include "plugin.h"

namespace bitheads::plugins {
namespace {

// Later libraries have all of it: their table of functions only grows.
constexpr std::uint32_t kApi = 21;
static_assert(ORT_API_VERSION >= kApi, "ONNX Runtime's headers are older than 1.21");

// What its arena, CUDA and cuBLAS say then.
constexpr const char *kOutOfMemory[] = {"allocate memory", "out of memory",
                                        "resource allocation failed"};

// Errors come as statuses; it would print the rest.
void ORT_API_CALL drop_message(void *, OrtLoggingLevel, const char *, const char *, const char *,
                               const char *) {}

}  // namespace

const OnnxRuntime &OnnxRuntime::open() {
  // Never destroyed: its threads may be there until the process ends.
  static const OnnxRuntime &opened = *new OnnxRuntime();
  return opened;
}

OnnxRuntime::OnnxRuntime() {
  void *library = open_library(kLibraryVariable, {"libonnxruntime.so.1", "libonnxruntime.so"},
                               "ONNX Runtime 1.21 or later");
  using GetApiBase = const OrtApiBase *(ORT_API_CALL *)();
  const auto get_base = reinterpret_cast<GetApiBase>(find_symbol(library, "OrtGetApiBase"));
  if (get_base == nullptr) {
    fail(BITHEADS_DEVICE_MISFIT, "the library that ", kLibraryVariable,
         " or the linker names is not ONNX Runtime: it has no OrtGetApiBase. Name the file "
         "libonnxruntime.so.");
  }
  const OrtApiBase &base = *get_base();
  version_ = base.GetVersionString();
  char *rest = nullptr;
  const auto major = std::strtoul(version_.c_str(), &rest, 10);
  const auto minor = *rest == '.' ? std::strtoul(rest + 1, nullptr, 10) : 0;
  // GetApi would print that it has no such version.
  if (major > 1 || (major == 1 && minor >= kApi)) api_ = base.GetApi(kApi);
  if (api_ == nullptr) {
    fail(BITHEADS_DEVICE_MISFIT, "ONNX Runtime: got version ", version_,
         ", expected 1.21 or later. Install a later one, or name its file in ", kLibraryVariable,
         ".");
  }
  check(api_->CreateEnvWithCustomLogger(drop_message, nullptr, ORT_LOGGING_LEVEL_ERROR, "bitheads",
                                        &environment_),
        "ONNX Runtime cannot start");
}

void OnnxRuntime::check(OrtStatus *status, const std::string &what) const {
  if (status == nullptr) return;
  const std::string said = api_->GetErrorMessage(status);
  api_->ReleaseStatus(status);
  const bool is_memory =
      std::any_of(std::begin(kOutOfMemory), std::end(kOutOfMemory),
                  [&](const char *words) { return said.find(words) != std::string::npos; });
  if (is_memory) {
    fail(BITHEADS_DEVICE_NO_MEMORY, what, ": the GPU has no memory left: ", said);
  }
  fail(BITHEADS_DEVICE_FAILED, what, ": ", said);
}

std::vector<std::string> OnnxRuntime::providers() const {
  char **names = nullptr;
  int count = 0;
  check(api_->GetAvailableProviders(&names, &count), "ONNX Runtime does not name its providers");
  std::vector<std::string> providers(names, names + count);
  check(api_->ReleaseAvailableProviders(names, count), "ONNX Runtime");
  return providers;
}

Owned<OrtSession> OnnxRuntime::load(const char *graph, const char *provider, std::int32_t index,
                                    void *stream) const {
  OrtSessionOptions *made = nullptr;
  check(api_->CreateSessionOptions(&made), "ONNX Runtime's options");
  const Owned<OrtSessionOptions> options(made, api_->ReleaseSessionOptions);
  check(api_->SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_ERROR), "ONNX Runtime's options");
  // The encoder runs on the GPU: what is left to the CPU is a few shapes.
  check(api_->SetIntraOpNumThreads(made, 1), "ONNX Runtime's options");
  const std::string name = provider != nullptr ? provider : "CPUExecutionProvider";
  if (provider != nullptr) add_provider(made, name, index, stream);
  OrtSession *session = nullptr;
  check(api_->CreateSession(environment_, graph, made, &session),
        name + " cannot load " + graph + ". Export the bundle again if it is damaged");
  return {session, api_->ReleaseSession};
}

void OnnxRuntime::add_provider(OrtSessionOptions *options, const std::string &provider,
                               std::int32_t index, void *stream) const {
  const std::string what = provider +
                           " could not be started. Its libraries (CUDA, cuDNN, TensorRT) are "
                           "missing or of another version than it was built for";
  const std::string number = std::to_string(index);
  const char *const keys[] = {"device_id"};
  const char *const values[] = {number.c_str()};
  // Calls go to the encoder's own stream, so that what follows on it need not wait.
  constexpr const char *kStream = "user_compute_stream";
  if (provider == kCudaProvider) {
    OrtCUDAProviderOptionsV2 *made = nullptr;
    check(api_->CreateCUDAProviderOptions(&made), what);
    const Owned<OrtCUDAProviderOptionsV2> cuda(made, api_->ReleaseCUDAProviderOptions);
    check(api_->UpdateCUDAProviderOptions(made, keys, values, 1), what);
    check(api_->UpdateCUDAProviderOptionsWithValue(made, kStream, stream), what);
    check(api_->SessionOptionsAppendExecutionProvider_CUDA_V2(options, made), what);
  } else {
    OrtTensorRTProviderOptionsV2 *made = nullptr;
    check(api_->CreateTensorRTProviderOptions(&made), what);
    const Owned<OrtTensorRTProviderOptionsV2> tensorrt(made, api_->ReleaseTensorRTProviderOptions);
    check(api_->UpdateTensorRTProviderOptions(made, keys, values, 1), what);
    check(api_->UpdateTensorRTProviderOptionsWithValue(made, kStream, stream), what);
    check(api_->SessionOptionsAppendExecutionProvider_TensorRT_V2(options, made), what);
  }
}

}  // namespace bitheads::plugins
