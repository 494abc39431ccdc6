#include "onnxruntime_session.h"

#include <algorithm>
#include <array>
#include <utility>

namespace bitheads::plugins {
namespace {

// The graph's axes are dynamic: memory is what bounds a call.
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 20;

std::string name_port(const OnnxRuntime &library, OrtSession *session, std::size_t index,
                      bool is_input) {
  const OrtApi &api = library.api();
  OrtAllocator *allocator = nullptr;
  library.check(api.GetAllocatorWithDefaultOptions(&allocator), "ONNX Runtime");
  char *name = nullptr;
  library.check(is_input ? api.SessionGetInputName(session, index, allocator, &name)
                         : api.SessionGetOutputName(session, index, allocator, &name),
                "ONNX Runtime names no tensor");
  const std::string copy = name;
  library.check(api.AllocatorFree(allocator, name), "ONNX Runtime");
  return copy;
}

// Element type and number of axes.
std::pair<ONNXTensorElementDataType, std::size_t> describe_port(const OnnxRuntime &library,
                                                                OrtSession *session,
                                                                std::size_t index, bool is_input) {
  const OrtApi &api = library.api();
  OrtTypeInfo *made = nullptr;
  library.check(is_input ? api.SessionGetInputTypeInfo(session, index, &made)
                         : api.SessionGetOutputTypeInfo(session, index, &made),
                "ONNX Runtime has no type of a tensor");
  const Owned<OrtTypeInfo> info(made, api.ReleaseTypeInfo);
  const OrtTensorTypeAndShapeInfo *tensor = nullptr;
  library.check(api.CastTypeInfoToTensorInfo(made, &tensor), "ONNX Runtime");
  std::pair<ONNXTensorElementDataType, std::size_t> found(ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED,
                                                          0);
  if (tensor != nullptr) {  // else it is no tensor
    library.check(api.GetTensorElementType(tensor, &found.first), "ONNX Runtime");
    library.check(api.GetDimensionsCount(tensor, &found.second), "ONNX Runtime");
  }
  return found;
}

}  // namespace

Session::Session(const OnnxRuntime &library, const char *provider,
                 const bitheads_device_model &model, const bitheads_device &device)
    : backend_(model.backend),
      device_(device),
      library_(library),
      api_(library.api()),
      graph_(model.graph),
      dim_(model.dim),
      outputs_(model.outputs, model.outputs + model.num_outputs),
      session_(library.load(model.graph, provider, device.index, device.stream)),
      memory_(nullptr, api_.ReleaseMemoryInfo),
      run_options_(nullptr, api_.ReleaseRunOptions) {
  read_inputs();
  read_outputs();
  limits.is_capturable = 1;
  limits.max_tokens = kMaxTokens;
  limits.max_seq = model.max_seq;
  OrtMemoryInfo *memory = nullptr;
  library_.check(provider != nullptr
                     ? api_.CreateMemoryInfo("Cuda", OrtDeviceAllocator, device.index,
                                             OrtMemTypeDefault, &memory)
                     : api_.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory),
                 backend_ + " has no name for the device's memory");
  memory_.reset(memory);
  OrtRunOptions *options = nullptr;
  library_.check(api_.CreateRunOptions(&options), "ONNX Runtime's options");
  run_options_.reset(options);
  library_.check(api_.AddRunConfigEntry(options, "disable_synchronize_execution_providers", "1"),
                 "ONNX Runtime's options");
}

void Session::read_inputs() {
  std::size_t count = 0;
  library_.check(api_.SessionGetInputCount(session_.get(), &count), "ONNX Runtime");
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) {
    names.push_back(name_port(library_, session_.get(), i, true));
    const auto [type, rank] = describe_port(library_, session_.get(), i, true);
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 || rank != 2) {
      fail(BITHEADS_DEVICE_FAILED, "graph ", graph_, ": got an input ", names.back(), " with ",
           rank, " axes and element type ", type,
           ", expected int64 [rows, seq]. Export the bundle again.");
    }
  }
  set_inputs(names);
}

void Session::read_outputs() {
  std::size_t count = 0;
  library_.check(api_.SessionGetOutputCount(session_.get(), &count), "ONNX Runtime");
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) {
    names.push_back(name_port(library_, session_.get(), i, false));
  }
  for (const std::string &output : outputs_) {
    const auto found = std::find(names.begin(), names.end(), output);
    const auto index = static_cast<std::size_t>(found - names.begin());
    const auto type = found != names.end()
                          ? describe_port(library_, session_.get(), index, false).first
                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    const bool is_hidden = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ||
                           type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    if (!is_hidden || (type_ != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED && type != type_)) {
      fail(BITHEADS_DEVICE_FAILED, "graph ", graph_, ": got outputs ", join(names), ", expected ",
           join(outputs_), ", all of them float16 or all float32. Export the bundle again.");
    }
    type_ = type;
  }
  set_type(type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? BITHEADS_DEVICE_FLOAT16
                                                          : BITHEADS_DEVICE_FLOAT32);
}

void Session::bind(const std::uint64_t *inputs, const std::uint64_t *outputs) {
  addresses_.inputs.assign(inputs, inputs + input_names.size());
  addresses_.outputs.assign(outputs, outputs + outputs_.size());
}

Call Session::check_call(std::int64_t rows, std::int64_t seq) const {
  if (rows < 1 || rows > max_rows(seq)) {
    fail(BITHEADS_DEVICE_FAILED, backend_, ": got a call of ", rows, " rows of ", seq,
         " tokens, expected 1 to ", limits.max_seq, " tokens per row, and ", limits.max_tokens,
         " in all. Use a smaller token budget (max_batch_tokens).");
  }
  if (addresses_.outputs.size() != outputs_.size()) {
    fail(BITHEADS_DEVICE_FAILED, backend_, ": no addresses are set. Call bind first.");
  }
  Call call = addresses_;
  call.rows = rows;
  call.seq = seq;
  return call;
}

void Session::enqueue(std::int64_t rows, std::int64_t seq, bool) {
  run(check_call(rows, seq));
}

Owned<OrtValue> Session::tensor_at(std::uint64_t address, std::int64_t rows, std::int64_t seq,
                                   bool is_hidden) const {
  const std::array<std::int64_t, 3> shape = {rows, seq, dim_};
  const std::size_t bytes_each =
      !is_hidden ? sizeof(std::int64_t)
                 : (type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? 2 : sizeof(float));
  const auto count = static_cast<std::size_t>(rows * seq * (is_hidden ? dim_ : 1));
  OrtValue *value = nullptr;
  library_.check(
      api_.CreateTensorWithDataAsOrtValue(
          memory_.get(), reinterpret_cast<void *>(address), count * bytes_each, shape.data(),
          is_hidden ? 3 : 2, is_hidden ? type_ : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value),
      backend_ + " refused an address");
  return {value, api_.ReleaseValue};
}

void Session::run(const Call &call) const {
  OrtIoBinding *made = nullptr;
  library_.check(api_.CreateIoBinding(session_.get(), &made), backend_ + " failed");
  const Owned<OrtIoBinding> binding(made, api_.ReleaseIoBinding);
  for (std::size_t i = 0; i < input_names.size(); ++i) {
    const auto value = tensor_at(call.inputs[i], call.rows, call.seq, false);
    library_.check(api_.BindInput(made, input_names[i].c_str(), value.get()), backend_ + " failed");
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const auto value = tensor_at(call.outputs[i], call.rows, call.seq, true);
    library_.check(api_.BindOutput(made, outputs_[i].c_str(), value.get()), backend_ + " failed");
  }
  library_.check(api_.RunWithBinding(session_.get(), run_options_.get(), made),
                 backend_ + " failed");
}

}  // namespace bitheads::plugins
