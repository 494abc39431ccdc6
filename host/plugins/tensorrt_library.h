// libnvinfer or libtensorrt_rtx, opened at run time. Both hand out objects with virtual functions,
// whose order is that of the headers: a library of another version is not refused by itself, it
// runs another function and crashes. So versions are compared before anything else is called.
#ifndef BITHEADS_PLUGINS_TENSORRT_LIBRARY_H
#define BITHEADS_PLUGINS_TENSORRT_LIBRARY_H

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <string>

namespace bitheads::plugins {

// Keeps the last error instead of printing it. TensorRT-RTX compiles in threads of its own.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const nvinfer1::AsciiChar *message) noexcept override;
  void clear();
  // "it did not say why" if there was none since `clear`.
  std::string last() const;

 private:
  mutable std::mutex mutex_;
  std::string last_;
};

class TensorRt {
 public:
  // Opened by the first call that succeeds.
  static const TensorRt &open();

  // In full, such as "10.14.1.48".
  const std::string &version() const { return version_; }

  // Fails if the library cannot start.
  std::unique_ptr<nvinfer1::IRuntime> make_runtime(Logger &logger) const;

 private:
  TensorRt();

  void *library_;
  std::string version_;
};

}  // namespace bitheads::plugins

#endif
