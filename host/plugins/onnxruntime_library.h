// libonnxruntime, opened at run time: 1.21 or later, whichever headers the plugin was compiled
// with.
#ifndef BITHEADS_PLUGINS_ONNXRUNTIME_LIBRARY_H
#define BITHEADS_PLUGINS_ONNXRUNTIME_LIBRARY_H

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bitheads::plugins {

template <class Object>
using Owned = std::unique_ptr<Object, void (*)(Object *)>;

class OnnxRuntime {
 public:
  // Opened by the first call that succeeds.
  static const OnnxRuntime &open();

  const OrtApi &api() const { return *api_; }
  const std::string &version() const { return version_; }

  // Throws what a status says, as a failure of memory where it is one.
  void check(OrtStatus *status, const std::string &what) const;

  std::vector<std::string> providers() const;

  // The graph, on one provider of a GPU or, without a name, on the CPU.
  Owned<OrtSession> load(const char *graph, const char *provider, std::int32_t index,
                         void *stream) const;

 private:
  OnnxRuntime();

  void add_provider(OrtSessionOptions *options, const std::string &provider, std::int32_t index,
                    void *stream) const;

  std::string version_;
  const OrtApi *api_ = nullptr;
  OrtEnv *environment_ = nullptr;
};

// Of the environment: the file of libonnxruntime.so.
constexpr const char *kLibraryVariable = "BITHEADS_ONNXRUNTIME_LIBRARY";
constexpr const char *kTensorRtProvider = "TensorrtExecutionProvider";
constexpr const char *kCudaProvider = "CUDAExecutionProvider";

}  // namespace bitheads::plugins

#endif
