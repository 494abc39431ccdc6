// The encoder on a provider of ONNX Runtime: what runs where no plan fits. See
// engine/sessions/onnxruntime_gpu.py.
#ifndef BITHEADS_PLUGINS_ONNXRUNTIME_SESSION_H
#define BITHEADS_PLUGINS_ONNXRUNTIME_SESSION_H

#include <cstdint>
#include <string>
#include <vector>

#include "onnxruntime_library.h"
#include "plugin.h"

namespace bitheads::plugins {

// What a call works on: addresses and sizes at the time it was enqueued.
struct Call {
  std::int64_t rows;
  std::int64_t seq;
  std::vector<std::uint64_t> inputs;
  std::vector<std::uint64_t> outputs;
};

class Session : public bitheads_device_session {
 public:
  // Args: provider: of a GPU; null for the CPU.
  Session(const OnnxRuntime &library, const char *provider, const bitheads_device_model &model,
          const bitheads_device &device);

  std::int64_t max_rows(std::int64_t seq) const override {
    return seq >= 1 && seq <= limits.max_seq ? limits.max_tokens / seq : 0;
  }
  void bind(const std::uint64_t *inputs, const std::uint64_t *outputs) override;
  void enqueue(std::int64_t rows, std::int64_t seq, bool keep) override;
  void forget(std::int64_t, std::int64_t) override {}  // nothing is kept

 protected:
  // The call, which the session can do.
  Call check_call(std::int64_t rows, std::int64_t seq) const;
  void run(const Call &call) const;

  const std::string backend_;
  const bitheads_device &device_;

 private:
  void read_inputs();
  void read_outputs();
  Owned<OrtValue> tensor_at(std::uint64_t address, std::int64_t rows, std::int64_t seq,
                            bool is_hidden) const;

  const OnnxRuntime &library_;
  const OrtApi &api_;
  const std::string graph_;
  const std::int64_t dim_;
  const std::vector<std::string> outputs_;
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> memory_;
  Owned<OrtRunOptions> run_options_;
  Call addresses_{};
  ONNXTensorElementDataType type_ = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
};

}  // namespace bitheads::plugins

#endif
