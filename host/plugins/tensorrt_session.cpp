#include "tensorrt_session.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <type_traits>

namespace bitheads::plugins {
namespace {

constexpr const char *kFlavour = BITHEADS_PLAN_FLAVOUR;
constexpr auto kUserManaged = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;

// Whether the headers are TensorRT-RTX's, from 1.3 on: it records CUDA graphs by itself.
template <class Config, class = void>
struct RecordsGraphs : std::false_type {};
template <class Config>
struct RecordsGraphs<Config, std::void_t<decltype(&Config::setCudaGraphStrategy)>>
    : std::true_type {};

template <class Config, class Strategy, bool is_noexcept>
void record_whole_graph(Config &config, bool (Config::*set)(Strategy) noexcept(is_noexcept)) {
  (config.*set)(Strategy::kWHOLE_GRAPH_CAPTURE);
}

// A template, so that what other headers lack is not looked at.
template <class Engine>
nvinfer1::IExecutionContext *create_context(Engine &engine) {
  using Config = std::remove_pointer_t<decltype(engine.createRuntimeConfig())>;
  if constexpr (RecordsGraphs<Config>::value) {
    const std::unique_ptr<Config> config(engine.createRuntimeConfig());
    if (config == nullptr) return nullptr;
    config->setExecutionContextAllocationStrategy(kUserManaged);
    record_whole_graph(*config, &Config::setCudaGraphStrategy);
    return engine.createExecutionContext(config.get());
  } else {
    return engine.createExecutionContext(kUserManaged);
  }
}

// Whether there is too little of it: an illegal access is another matter, and ends the device.
bool lacks_memory(std::string said) {
  std::transform(said.begin(), said.end(), said.begin(),
                 [](unsigned char letter) { return std::tolower(letter); });
  return said.find("memory") != std::string::npos && said.find("illegal") == std::string::npos;
}

std::vector<std::string> copy(const char *const *names, std::size_t count) {
  return {names, names + count};
}

}  // namespace

DeviceMemory::DeviceMemory(const bitheads_device &device, std::size_t bytes) : device_(device) {
  const std::int32_t error = device.allocate(device.host, bytes, &address_);
  if (error != 0) {
    fail(BITHEADS_DEVICE_NO_MEMORY, kFlavour, " needs ", bytes,
         " bytes of the GPU's memory for activations, which it does not have: error ", error,
         ". Build the plan with smaller profiles, or free some of its memory.");
  }
}

Session::Session(const TensorRt &library, const bitheads_device_model &model,
                 const bitheads_device &device)
    : device_(device),
      profiles_(model.profiles, model.profiles + model.num_profiles),
      outputs_(copy(model.outputs, model.num_outputs)) {
  set_inputs(copy(model.inputs, model.num_inputs));
  const std::string plan = model.plan_path;
  runtime_ = library.make_runtime(logger_);
  logger_.clear();
  engine_.reset(runtime_->deserializeCudaEngine(model.plan, model.plan_bytes));
  if (engine_ == nullptr) {
    const std::string said = logger_.last();
    fail(lacks_memory(said) ? BITHEADS_DEVICE_NO_MEMORY : BITHEADS_DEVICE_MISFIT, "plan ", plan,
         ": ", kFlavour, " ", library.version(), " cannot load it on this GPU: ", said,
         ". Build it again on this machine with `bitheads plan`.");
  }
  check_tensors(plan);
  set_output_type(plan);
  activation_bytes_ = static_cast<std::size_t>(engine_->getDeviceMemorySizeV2());
  activations_ =
      std::make_unique<DeviceMemory>(device, std::max<std::size_t>(1, activation_bytes_));
  // TensorRT-RTX compiles kernels for a shape behind the scenes, and records graphs by itself once
  // it has: what is captured from outside could be the slower first version.
  limits.is_capturable = RecordsGraphs<nvinfer1::IRuntimeConfig>::value ? 0 : 1;
  for (const bitheads_device_profile &profile : profiles_) {
    limits.max_tokens = std::max(limits.max_tokens, max_tokens(profile));
    limits.max_seq = std::max(limits.max_seq, profile.max[1]);
  }
}

void Session::check_tensors(const std::string &plan) const {
  std::set<std::string> names;
  for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
    names.insert(engine_->getIOTensorName(i));
  }
  std::set<std::string> expected(input_names.begin(), input_names.end());
  expected.insert(outputs_.begin(), outputs_.end());
  const auto profiles = static_cast<std::size_t>(engine_->getNbOptimizationProfiles());
  if (names == expected && profiles == profiles_.size()) return;
  fail(BITHEADS_DEVICE_MISFIT, "plan ", plan, ": got tensors ", join({names.begin(), names.end()}),
       " and ", profiles, " profiles, expected ", join({expected.begin(), expected.end()}), " and ",
       profiles_.size(), ". Build it again with `bitheads plan`.");
}

void Session::set_output_type(const std::string &plan) {
  std::set<nvinfer1::DataType> types;
  for (const std::string &name : outputs_) types.insert(engine_->getTensorDataType(name.c_str()));
  const bool are_ids =
      std::all_of(input_names.begin(), input_names.end(), [&](const std::string &name) {
        return engine_->getTensorDataType(name.c_str()) == nvinfer1::DataType::kINT64;
      });
  if (are_ids && types.size() == 1 && *types.begin() == nvinfer1::DataType::kHALF) {
    set_type(BITHEADS_DEVICE_FLOAT16);
  } else if (are_ids && types.size() == 1 && *types.begin() == nvinfer1::DataType::kFLOAT) {
    set_type(BITHEADS_DEVICE_FLOAT32);
  } else {
    fail(BITHEADS_DEVICE_MISFIT, "plan ", plan, ": expected inputs ", join(input_names),
         " of int64 and outputs ", join(outputs_),
         " of float16 or float32, all of one type; it has others. Build it again with "
         "`bitheads plan`.");
  }
}

void Session::bind(const std::uint64_t *inputs, const std::uint64_t *outputs) {
  contexts_.clear();  // they hold the addresses they were made with
  for (std::size_t i = 0; i < input_names.size(); ++i) {
    addresses_[input_names[i]] = reinterpret_cast<void *>(inputs[i]);
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    addresses_[outputs_[i]] = reinterpret_cast<void *>(outputs[i]);
  }
}

void Session::enqueue(std::int64_t rows, std::int64_t seq, bool keep) {
  const std::size_t profile = choose_profile(profiles_, rows, seq);
  std::unique_ptr<nvinfer1::IExecutionContext> &context =
      contexts_[keep ? Key(profile, rows, seq) : Key(profile, 0, 0)];
  if (context == nullptr) context = make_context(profile);
  logger_.clear();
  std::string shape = "[";
  shape.append(std::to_string(rows)).append(", ").append(std::to_string(seq)).append("]");
  for (const std::string &name : input_names) {
    require(context->setInputShape(name.c_str(), nvinfer1::Dims{2, {rows, seq}}),
            std::string(name).append(" as ").append(shape));
  }
  require(context->enqueueV3(stream()), "a batch of " + shape);
}

void Session::forget(std::int64_t rows, std::int64_t seq) {
  for (std::size_t profile = 0; profile < profiles_.size(); ++profile) {
    contexts_.erase(Key(profile, rows, seq));
  }
}

std::unique_ptr<nvinfer1::IExecutionContext> Session::make_context(std::size_t profile) {
  logger_.clear();
  std::unique_ptr<nvinfer1::IExecutionContext> context(create_context(*engine_));
  if (context == nullptr) {
    fail(BITHEADS_DEVICE_NO_MEMORY, kFlavour, " cannot make an execution context: ", logger_.last(),
         ". The GPU's memory may be full: pass a smaller max_batch_tokens, or build the plan with "
         "smaller profiles.");
  }
  context->setDeviceMemoryV2(activations_->address(), static_cast<std::int64_t>(activation_bytes_));
  require(context->setOptimizationProfileAsync(static_cast<std::int32_t>(profile), stream()),
          "profile " + std::to_string(profile));
  for (const auto &[name, address] : addresses_) {
    require(context->setTensorAddress(name.c_str(), address), "the address of " + name);
  }
  return context;
}

void Session::require(bool done, const std::string &what) const {
  if (done) return;
  const std::string said = logger_.last();
  fail(lacks_memory(said) ? BITHEADS_DEVICE_NO_MEMORY : BITHEADS_DEVICE_FAILED, kFlavour,
       " refused ", what, ": ", said, ".");
}

}  // namespace bitheads::plugins
