// An encoder whose inputs and outputs are device memory, as a plugin has it.
#ifndef BITHEADS_HOST_DEVICE_SESSION_H
#define BITHEADS_HOST_DEVICE_SESSION_H

#include <memory>
#include <string>
#include <vector>

#include "bitheads/kernels.h"
#include "bundle.h"
#include "device/driver.h"
#include "device/plugin.h"

namespace bitheads {

// A plugin's session. Its functions want a current context; they throw Error(device_memory) or
// Error(backend).
class DeviceSession {
 public:
  // All work of the session goes to the stream, which has to outlive it. Throws Error(backend) if
  // no plan fits, or if the plugin refuses the encoder.
  DeviceSession(const Plugin &plugin, const std::string &backend, const fs::path &folder,
                const Manifest &manifest, const Device &device, CudaHandle stream);
  ~DeviceSession();
  DeviceSession(const DeviceSession &) = delete;
  DeviceSession &operator=(const DeviceSession &) = delete;

  const std::string &name() const { return name_; }  // backend and precision
  bh_dtype dtype() const;
  size_t item_bytes() const { return dtype() == BH_FLOAT32 ? 4 : 2; }
  bool is_capturable() const { return limits().is_capturable != 0; }
  const std::vector<std::string> &inputs() const { return inputs_; }
  int64_t max_tokens() const { return limits().max_tokens; }
  int64_t max_seq() const { return limits().max_seq; }
  int64_t max_rows(int64_t seq) const { return plugin_.table->max_rows(session_, seq); }

  void bind(const std::vector<uint64_t> &inputs, const std::vector<uint64_t> &outputs);
  void enqueue(int64_t rows, int64_t seq, bool keep);
  void forget(int64_t rows, int64_t seq) { plugin_.table->forget(session_, rows, seq); }

 private:
  struct Host;
  const bitheads_device_limits &limits() const { return *plugin_.table->limits(session_); }
  void check(bitheads_device_status status, const std::string &what) const;

  Plugin plugin_;
  std::string name_;
  std::unique_ptr<Host> host_;  // what the plugin calls: it stays where it is
  bitheads_device_session *session_ = nullptr;
  std::vector<std::string> inputs_;
};

}  // namespace bitheads

#endif
