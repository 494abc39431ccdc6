// The encoder as a plan of TensorRT or TensorRT-RTX. See engine/sessions/tensorrt.py.
#ifndef BITHEADS_PLUGINS_TENSORRT_SESSION_H
#define BITHEADS_PLUGINS_TENSORRT_SESSION_H

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "plugin.h"
#include "profile.h"
#include "tensorrt_library.h"

namespace bitheads::plugins {

// Device memory, until it goes.
class DeviceMemory {
 public:
  DeviceMemory(const bitheads_device &device, std::size_t bytes);
  ~DeviceMemory() { device_.free(device_.host, address_); }
  DeviceMemory(const DeviceMemory &) = delete;
  DeviceMemory &operator=(const DeviceMemory &) = delete;

  void *address() const { return reinterpret_cast<void *>(address_); }

 private:
  const bitheads_device &device_;
  std::uint64_t address_ = 0;
};

// All execution contexts share one block of device memory for activations, as their calls follow
// one another on one stream: a context for each profile, and one for each shape that a CUDA graph
// holds on to.
class Session : public bitheads_device_session {
 public:
  Session(const TensorRt &library, const bitheads_device_model &model,
          const bitheads_device &device);

  std::int64_t max_rows(std::int64_t seq) const override {
    return plugins::max_rows(profiles_, seq);
  }
  void bind(const std::uint64_t *inputs, const std::uint64_t *outputs) override;
  void enqueue(std::int64_t rows, std::int64_t seq, bool keep) override;
  void forget(std::int64_t rows, std::int64_t seq) override;

 private:
  // The profile, and the shape of a context that is kept for it; 0 and 0 for the profile's own.
  using Key = std::tuple<std::size_t, std::int64_t, std::int64_t>;

  void check_tensors(const std::string &plan) const;
  void set_output_type(const std::string &plan);
  std::unique_ptr<nvinfer1::IExecutionContext> make_context(std::size_t profile);
  void require(bool done, const std::string &what) const;
  cudaStream_t stream() const { return static_cast<cudaStream_t>(device_.stream); }

  const bitheads_device &device_;
  const Profiles profiles_;
  const std::vector<std::string> outputs_;
  std::map<std::string, void *> addresses_;
  // Each needs those before it.
  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::size_t activation_bytes_ = 0;
  std::unique_ptr<DeviceMemory> activations_;
  std::map<Key, std::unique_ptr<nvinfer1::IExecutionContext>> contexts_;
};

}  // namespace bitheads::plugins

#endif
