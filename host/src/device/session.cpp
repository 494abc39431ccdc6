#include "device/session.h"

#include <algorithm>
#include <optional>

#include "device/plan.h"
#include "error.h"

namespace bitheads {
namespace {

std::vector<const char *> pointers(const std::vector<std::string> &texts) {
  std::vector<const char *> found;
  for (const std::string &text : texts) found.push_back(text.c_str());
  return found;
}

bool is_input(const std::string &name) {
  return name == "input_ids" || name == "attention_mask" || name == "token_type_ids";
}

// The plan that fits, for a plugin that runs plans. Throws Error(backend).
std::optional<Plan> find_fitting_plan(const Plugin &plugin, const fs::path &folder,
                                      const Manifest &manifest, const Device &device) {
  if (plugin.table->plan_flavour == nullptr) return std::nullopt;
  const char *version = plugin.table->library_version();
  if (version == nullptr) {
    fail(Status::backend, "plugin ", plugin.path, ": ", plugin.last_error());
  }
  Plan plan = find_plan(folder, manifest.graph_sha256(), plugin.table->plan_flavour, version,
                        device.compute_capability());
  std::string type;
  for (const std::string &output : manifest.output_names()) {
    const auto found = plan.info.outputs.find(output);
    if (found == plan.info.outputs.end() || (!type.empty() && found->second != type)) {
      fail(Status::backend, "plan ", plan.path.string(), ": got no output ", output,
           ", or outputs of several types, expected the bundle's pooled layers, of one type. Build "
           "it again with `bitheads plan`.");
    }
    type = found->second;
  }
  return plan;
}

}  // namespace

// The device as plugins see it. No exception may pass through them.
struct DeviceSession::Host {
  Host(const Device &its_device, CudaHandle stream) : device(its_device) {
    table.index = device.index();
    table.stream = stream;
    table.host = this;
    table.allocate = [](void *host, size_t bytes, uint64_t *address) -> int32_t {
      DeviceAddress allocated = 0;
      const CudaStatus status = of(host).allocate(&allocated, std::max<size_t>(1, bytes));
      *address = allocated;
      return status;
    };
    table.free = [](void *host, uint64_t address) { of(host).free(address); };
    table.enqueue_function = [](void *host, void (*function)(void *), void *argument) -> int32_t {
      return of(host).launch_host_function(static_cast<Host *>(host)->table.stream, function,
                                           argument);
    };
  }

  static const Driver &of(void *host) { return static_cast<Host *>(host)->device.driver(); }

  const Device &device;
  bitheads_device table = {};
};

DeviceSession::DeviceSession(const Plugin &plugin, const std::string &backend,
                             const fs::path &folder, const Manifest &manifest, const Device &device,
                             CudaHandle stream)
    : plugin_(plugin), host_(std::make_unique<Host>(device, stream)) {
  const std::optional<Plan> plan = find_fitting_plan(plugin, folder, manifest, device);
  const std::string plan_bytes = plan ? plan->read_bytes() : "";
  const std::string graph = (folder / "encoder.onnx").string();
  const std::string plan_path = plan ? plan->path.string() : "";
  const std::vector<std::string> output_names = manifest.output_names();
  const auto outputs = pointers(output_names);
  const auto inputs = plan ? pointers(plan->info.inputs) : std::vector<const char *>();
  bitheads_device_model model = {};
  model.graph = graph.c_str();
  if (plan) {
    model.plan_path = plan_path.c_str();
    model.plan = plan_bytes.data();
    model.plan_bytes = plan_bytes.size();
    model.profiles = plan->info.profiles.data();
    model.num_profiles = plan->info.profiles.size();
    model.inputs = inputs.data();
    model.num_inputs = inputs.size();
  }
  model.outputs = outputs.data();
  model.num_outputs = outputs.size();
  model.dim = manifest.spec.dim;
  model.max_seq = manifest.max_length;
  model.backend = backend.c_str();
  const bitheads_device_status status = plugin.table->open(&model, &host_->table, &session_);
  check(status, backend + " cannot load " + (plan ? "plan " + plan_path : graph));
  name_ =
      plan ? plan->info.flavour + " " + plan->info.precision : backend + " " + limits().precision;
  for (size_t i = 0; i < limits().num_inputs; ++i) {
    inputs_.emplace_back(limits().inputs[i]);
    if (!is_input(inputs_.back())) {
      const std::string input = inputs_.back();
      plugin_.table->close(session_);
      fail(Status::bundle, "bundle ", folder, ": the graph has an input '", input,
           "', which no encoder of ours has. Export the bundle again.");
    }
  }
}

DeviceSession::~DeviceSession() {
  try {
    const Device::Current current(host_->device, "closing the encoder");
    plugin_.table->close(session_);
  } catch (...) {  // a lost device; what the session has on it goes with the process
  }
}

bh_dtype DeviceSession::dtype() const {
  return limits().type == BITHEADS_DEVICE_FLOAT32 ? BH_FLOAT32 : BH_FLOAT16;
}

void DeviceSession::bind(const std::vector<uint64_t> &inputs,
                         const std::vector<uint64_t> &outputs) {
  check(plugin_.table->bind(session_, inputs.data(), outputs.data()),
        name_ + " refused its addresses");
}

void DeviceSession::enqueue(int64_t rows, int64_t seq, bool keep) {
  const bitheads_device_status status = plugin_.table->enqueue(session_, rows, seq, keep ? 1 : 0);
  if (status == BITHEADS_DEVICE_OK) return;
  check(status, name_ + " failed on a batch of [" + std::to_string(rows) + ", " +
                    std::to_string(seq) + "] tokens");
}

void DeviceSession::check(bitheads_device_status status, const std::string &what) const {
  if (status == BITHEADS_DEVICE_OK) return;
  const std::string why = plugin_.last_error();
  if (status == BITHEADS_DEVICE_NO_MEMORY) {
    fail(Status::device_memory, what, ": the GPU has no memory left: ", why,
         ". Pass a smaller max_batch_tokens, or free memory that other programs hold.");
  }
  fail(Status::backend, what, ": ", why,
       status == BITHEADS_DEVICE_MISFIT
           ? ". Build the plan again on this machine with `bitheads plan`."
           : ". Look at the versions of CUDA and of the libraries that the plugin links, or take "
             "another backend.");
}

}  // namespace bitheads
