// Stands in for an ONNX Runtime of a GPU: the real library, named by FAKE_REAL, which says that it
// has the providers, takes their options, and runs on the CPU at the addresses "of the GPU".
//
// FAKE_VERSION is its version, FAKE_FAULT what goes wrong, FAKE_LOG the file that it writes
// options to.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace {

const OrtApi *real = nullptr;
const char *names[] = {"TensorrtExecutionProvider", "CUDAExecutionProvider",
                       "CPUExecutionProvider"};

bool has_fault(const char *name) {
  const char *fault = std::getenv("FAKE_FAULT");
  return fault != nullptr && std::strcmp(fault, name) == 0;
}

OrtStatus *note(const char *provider, const char *key, const char *value) {
  const char *path = std::getenv("FAKE_LOG");
  if (path == nullptr) return nullptr;
  std::FILE *file = std::fopen(path, "a");
  std::fprintf(file, "%s %s %s\n", provider, key, value);
  std::fclose(file);
  return nullptr;
}

OrtStatus *ORT_API_CALL available(char ***found, int *count) noexcept {
  *found = const_cast<char **>(names);
  *count = 3;
  return nullptr;
}
OrtStatus *ORT_API_CALL release_available(char **, int) noexcept {
  return nullptr;
}

// Options are a byte each: what leaks is seen.
template <class Options>
OrtStatus *ORT_API_CALL create(Options **options) noexcept {
  *options = reinterpret_cast<Options *>(new char());
  return nullptr;
}
template <class Options>
void ORT_API_CALL release(Options *options) noexcept {
  delete reinterpret_cast<char *>(options);
}
template <class Options>
OrtStatus *ORT_API_CALL update(Options *, const char *const *keys, const char *const *values,
                               size_t count) noexcept {
  for (size_t i = 0; i < count; ++i) note("option", keys[i], values[i]);
  return nullptr;
}
template <class Options>
OrtStatus *ORT_API_CALL update_value(Options *, const char *key, void *value) noexcept {
  return note("option", key, value != nullptr ? "set" : "null");
}
template <class Options>
OrtStatus *ORT_API_CALL append(OrtSessionOptions *, const Options *) noexcept {
  if (has_fault("provider")) return real->CreateStatus(ORT_FAIL, "libcudnn.so.9 is not there");
  const bool is_cuda = std::is_same_v<Options, OrtCUDAProviderOptionsV2>;
  return note("provider", is_cuda ? names[1] : names[0], "appended");
}

OrtStatus *ORT_API_CALL create_memory(const char *name, OrtAllocatorType type, int index,
                                      OrtMemType kind, OrtMemoryInfo **made) noexcept {
  note("memory", name, index == 0 ? "0" : "another");
  return real->CreateMemoryInfo("Cpu", type, 0, kind, made);
}

OrtStatus *ORT_API_CALL run(OrtSession *session, const OrtRunOptions *options,
                            const OrtIoBinding *binding) noexcept {
  if (has_fault("memory")) {
    return real->CreateStatus(ORT_FAIL, "BFCArena: Failed to allocate memory for 4096 bytes");
  }
  if (has_fault("run")) return real->CreateStatus(ORT_FAIL, "CUDA error 700");
  return real->RunWithBinding(session, options, binding);
}

const OrtApi *ORT_API_CALL get_api(uint32_t version) noexcept {
  void *library = dlopen(std::getenv("FAKE_REAL"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  using GetBase = const OrtApiBase *(*)();
  real = reinterpret_cast<GetBase>(dlsym(library, "OrtGetApiBase"))()->GetApi(version);
  static OrtApi api = *real;  // as much as these headers know of it
  api.GetAvailableProviders = available;
  api.ReleaseAvailableProviders = release_available;
  api.CreateCUDAProviderOptions = create<OrtCUDAProviderOptionsV2>;
  api.UpdateCUDAProviderOptions = update<OrtCUDAProviderOptionsV2>;
  api.UpdateCUDAProviderOptionsWithValue = update_value<OrtCUDAProviderOptionsV2>;
  api.ReleaseCUDAProviderOptions = release<OrtCUDAProviderOptionsV2>;
  api.SessionOptionsAppendExecutionProvider_CUDA_V2 = append<OrtCUDAProviderOptionsV2>;
  api.CreateTensorRTProviderOptions = create<OrtTensorRTProviderOptionsV2>;
  api.UpdateTensorRTProviderOptions = update<OrtTensorRTProviderOptionsV2>;
  api.UpdateTensorRTProviderOptionsWithValue = update_value<OrtTensorRTProviderOptionsV2>;
  api.ReleaseTensorRTProviderOptions = release<OrtTensorRTProviderOptionsV2>;
  api.SessionOptionsAppendExecutionProvider_TensorRT_V2 = append<OrtTensorRTProviderOptionsV2>;
  api.CreateMemoryInfo = create_memory;
  api.RunWithBinding = run;
  return &api;
}

const char *ORT_API_CALL get_version() noexcept {
  return std::getenv("FAKE_VERSION");
}

const OrtApiBase base = {get_api, get_version};

}  // namespace

extern "C" __attribute__((visibility("default"))) const OrtApiBase *ORT_API_CALL
OrtGetApiBase() noexcept {
  return &base;
}
