// Stands in for libnvinfer, and for libtensorrt_rtx: it implements the interfaces of the headers
// for what plugins call, and is as strict as the documentation (tests/device/software_tensorrt.py
// is the same for Python). A call is work on the stream: it reads and writes the bound addresses
// when its turn comes. Hidden states are a formula: tests/host/test_host_plugin_tensorrt.py has it.
//
// FAKE_VERSION is its version, FAKE_FAULT what goes wrong, FAKE_LOG the file that it writes what is
// asked of it to.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "nvinfer_stubs.h"  // written by tests/host/plugin_headers.py

namespace {

using namespace nvinfer1;
using Severity = ILogger::Severity;

constexpr int64_t kActivationBytes = 4096;
constexpr int kFills = 0x5A;  // what a call leaves in its activations

[[noreturn]] void abort_with(const char *what) {
  std::fprintf(stderr, "fake nvinfer: %s\n", what);
  std::abort();
}

void note(const std::string &line) {
  const char *path = std::getenv("FAKE_LOG");
  if (path == nullptr) return;
  std::FILE *file = std::fopen(path, "a");
  std::fprintf(file, "%s\n", line.c_str());
  std::fclose(file);
}

bool has_fault(const char *name) {
  const char *fault = std::getenv("FAKE_FAULT");
  return fault != nullptr && std::strcmp(fault, name) == 0;
}

std::array<int, 4> version() {
  std::array<int, 4> numbers = {};
  const char *text = std::getenv("FAKE_VERSION");
  if (text == nullptr) abort_with("FAKE_VERSION is not set");
  std::sscanf(text, "%d.%d.%d.%d", &numbers[0], &numbers[1], &numbers[2], &numbers[3]);
  return numbers;
}

void launch(cudaStream_t stream, void (*function)(void *), void *argument) {
  using Launch = int (*)(void *, void (*)(void *), void *);
  auto enqueue = reinterpret_cast<Launch>(dlsym(RTLD_DEFAULT, "cuLaunchHostFunc"));
  if (enqueue == nullptr) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (driver == nullptr) abort_with("there is no driver");
    enqueue = reinterpret_cast<Launch>(dlsym(driver, "cuLaunchHostFunc"));
  }
  if (enqueue(stream, function, argument) != 0) abort_with("the stream refused a function");
}

uint16_t half_of(float value) {  // of what float16 has exactly, from 2^-14 up
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return value == 0 ? 0 : static_cast<uint16_t>((bits >> 13) - 0x1C000);
}

struct Plan {
  struct Profile {
    std::array<int64_t, 6> sizes;  // min, opt, max, each rows and seq

    bool fits(int64_t rows, int64_t seq) const {
      return sizes[0] <= rows && rows <= sizes[4] && sizes[1] <= seq && seq <= sizes[5];
    }
  };
  DataType type = DataType::kFLOAT;
  DataType input_type = DataType::kINT64;
  int64_t dim = 0;
  std::vector<Profile> profiles;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;

  bool has(const std::string &name) const {
    return std::count(inputs.begin(), inputs.end(), name) +
               std::count(outputs.begin(), outputs.end(), name) ==
           1;
  }
};

// A word, and what it is of, each line.
bool read_plan(const std::string &text, Plan &plan) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != "fake plan") return false;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string key;
    std::string word;
    words >> key;
    while (words >> word) {
      if (key == "type") plan.type = word == "float16" ? DataType::kHALF : DataType::kFLOAT;
      if (key == "ids" && word == "int32") plan.input_type = DataType::kINT32;
      if (key == "dim") plan.dim = std::stol(word);
      if (key == "inputs") plan.inputs.push_back(word);
      if (key == "outputs") plan.outputs.push_back(word);
      if (key == "profiles") {
        auto &s = plan.profiles.emplace_back().sizes;
        std::sscanf(word.c_str(), "%ldx%ld,%ldx%ld,%ldx%ld", &s[0], &s[1], &s[2], &s[3], &s[4],
                    &s[5]);
      }
    }
  }
  return true;
}

// What a call works on: values at the time it was enqueued.
struct Call {
  const Plan *plan;
  int64_t rows;
  int64_t seq;
  std::map<std::string, void *> addresses;
  void *activations;

  void run() const {
    const auto tokens = static_cast<size_t>(rows * seq);
    for (size_t layer = 0; layer < plan->outputs.size(); ++layer) {
      void *hidden = addresses.at(plan->outputs[layer]);
      for (size_t token = 0; token < tokens; ++token) {
        uint64_t sum = 0;  // of what nobody may have written: it may wrap
        for (size_t i = 0; i < plan->inputs.size(); ++i) {
          const void *ids = addresses.at(plan->inputs[i]);
          sum += (i + 1) * static_cast<const uint64_t *>(ids)[token];
        }
        for (int64_t d = 0; d < plan->dim; ++d) {
          const auto value = static_cast<float>((layer + 1) * sum + static_cast<uint64_t>(d));
          const size_t at = token * static_cast<size_t>(plan->dim) + static_cast<size_t>(d);
          if (plan->type == DataType::kHALF) {
            static_cast<uint16_t *>(hidden)[at] = half_of(value);
          } else {
            static_cast<float *>(hidden)[at] = value;
          }
        }
      }
    }
    std::memset(activations, kFills, kActivationBytes);
  }
};

class FakeContext : public IExecutionContext, public stubs::VExecutionContext {
 public:
  FakeContext(const Plan &plan, ILogger &logger) : plan_(plan), logger_(logger) {
    mImpl = this;
    note("context");
  }
  ~FakeContext() noexcept override { note("context freed"); }

  IExecutionContext *getPImpl() noexcept override { return this; }

  void setDeviceMemoryV2(void *memory, int64_t size) noexcept override {
    if (reinterpret_cast<uintptr_t>(memory) % 256 != 0) abort_with("activations are not aligned");
    if (size < kActivationBytes) abort_with("there are too few activations");
    activations_ = memory;
  }

  bool setOptimizationProfileAsync(int32_t index, cudaStream_t stream) noexcept override {
    if (stream == nullptr) abort_with("no stream");
    note("profile " + std::to_string(index));
    profile_ = &plan_.profiles.at(static_cast<size_t>(index));
    shapes_.clear();
    return true;
  }

  bool setTensorAddress(char const *name, void *address) noexcept override {
    if (reinterpret_cast<uintptr_t>(address) % 256 != 0) abort_with("an address is not aligned");
    note(std::string("address ") + name);
    addresses_[name] = address;
    return plan_.has(name);
  }

  bool setInputShape(char const *name, Dims const &dims) noexcept override {
    if (profile_ == nullptr || dims.nbDims != 2 || !profile_->fits(dims.d[0], dims.d[1])) {
      logger_.log(Severity::kERROR, "the shape is outside the profile");
      return false;
    }
    shapes_[name] = {dims.d[0], dims.d[1]};
    return true;
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (has_fault("enqueue")) {
      logger_.log(Severity::kERROR, "an illegal memory access was encountered");
      return false;
    }
    if (has_fault("memory")) {
      logger_.log(Severity::kINTERNAL_ERROR, "Out of Memory in a tactic");
      return false;
    }
    const bool is_complete = shapes_.size() == plan_.inputs.size() && activations_ != nullptr &&
                             addresses_.size() == plan_.inputs.size() + plan_.outputs.size();
    if (!is_complete) {
      logger_.log(Severity::kERROR, "not everything is bound");
      return false;
    }
    const auto [rows, seq] = shapes_.begin()->second;
    note("enqueue " + std::to_string(rows) + "x" + std::to_string(seq));
    calls_.push_back({&plan_, rows, seq, addresses_, activations_});
    launch(stream, [](void *call) { static_cast<Call *>(call)->run(); }, &calls_.back());
    return true;
  }

 private:
  const Plan &plan_;
  ILogger &logger_;
  const Plan::Profile *profile_ = nullptr;
  void *activations_ = nullptr;
  std::map<std::string, void *> addresses_;
  std::map<std::string, std::pair<int64_t, int64_t>> shapes_;
  std::list<Call> calls_;  // until it goes: a graph may run one again
};

class FakeConfig : public IRuntimeConfig, public stubs::VRuntimeConfig {
 public:
  FakeConfig() { mImpl = this; }

  IRuntimeConfig *getPImpl() noexcept override { return this; }
  void setExecutionContextAllocationStrategy(
      ExecutionContextAllocationStrategy wanted) noexcept override {
    strategy = wanted;
  }
#ifdef TRT_MAJOR_RTX
  bool setCudaGraphStrategy(CudaGraphStrategy wanted) noexcept override {
    records_graphs = wanted == CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE;
    return true;
  }
#endif

  ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC;
  bool records_graphs = false;
};

class FakeEngine : public ICudaEngine, public stubs::VCudaEngine {
 public:
  FakeEngine(Plan plan, ILogger &logger) : plan_(std::move(plan)), logger_(logger) { mImpl = this; }
  ~FakeEngine() noexcept override { note("engine freed"); }

  ICudaEngine *getPImpl() noexcept override { return this; }
  int32_t getNbIOTensors() const noexcept override {
    return static_cast<int32_t>(plan_.inputs.size() + plan_.outputs.size());
  }
  char const *getIOTensorName(int32_t index) const noexcept override {
    const auto at = static_cast<size_t>(index);
    const size_t num_inputs = plan_.inputs.size();
    return (at < num_inputs ? plan_.inputs[at] : plan_.outputs[at - num_inputs]).c_str();
  }
  DataType getTensorDataType(char const *name) const noexcept override {
    const bool is_input = std::count(plan_.inputs.begin(), plan_.inputs.end(), name) != 0;
    return is_input ? plan_.input_type : plan_.type;
  }
  int32_t getNbOptimizationProfiles() const noexcept override {
    return static_cast<int32_t>(plan_.profiles.size());
  }
  int64_t getDeviceMemorySizeV2() const noexcept override { return kActivationBytes; }

#ifdef TRT_MAJOR_RTX
  IRuntimeConfig *createRuntimeConfig() noexcept override { return new FakeConfig(); }
  IExecutionContext *createExecutionContextWithRuntimeConfig(
      IRuntimeConfig *config) noexcept override {
    const auto &made = dynamic_cast<FakeConfig &>(*config);
    if (!made.records_graphs) abort_with("graphs are not recorded");
    return make_context(made.strategy);
  }
#else
  IExecutionContext *createExecutionContext(
      ExecutionContextAllocationStrategy strategy) noexcept override {
    return make_context(strategy);
  }
#endif

 private:
  IExecutionContext *make_context(ExecutionContextAllocationStrategy strategy) {
    if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
      abort_with("memory of its own is not wanted");
    }
    if (has_fault("contexts")) {
      logger_.log(Severity::kERROR, "the context cannot be made");
      return nullptr;
    }
    return new FakeContext(plan_, logger_);
  }

  const Plan plan_;
  ILogger &logger_;
};

class FakeRuntime : public IRuntime, public stubs::VRuntime {
 public:
  explicit FakeRuntime(ILogger &logger) : logger_(logger) { mImpl = this; }
  ~FakeRuntime() noexcept override { note("runtime freed"); }

  IRuntime *getPImpl() noexcept override { return this; }
  using stubs::VRuntime::deserializeCudaEngine;
  nvinfer1::ICudaEngine *deserializeCudaEngine(void const *blob, size_t size) noexcept override {
    Plan plan;
    if (!read_plan({static_cast<const char *>(blob), size}, plan)) {
      logger_.log(Severity::kERROR, "magic tag does not match");
      logger_.log(Severity::kWARNING, "a warning is no reason");
      return nullptr;
    }
    return new FakeEngine(std::move(plan), logger_);
  }

 private:
  ILogger &logger_;
};

}  // namespace

// As the headers declare them.
extern "C" {
#define FAKE_EXPORT __attribute__((visibility("default")))
FAKE_EXPORT int32_t getInferLibMajorVersion() noexcept {
  return version()[0];
}
FAKE_EXPORT int32_t getInferLibMinorVersion() noexcept {
  return version()[1];
}
FAKE_EXPORT int32_t getInferLibPatchVersion() noexcept {
  return version()[2];
}
FAKE_EXPORT int32_t getInferLibBuildVersion() noexcept {
  return version()[3];
}
FAKE_EXPORT void *createInferRuntime_INTERNAL(void *logger, int32_t asked) noexcept {
  // What the real one does not do, and crashes later.
  if (version()[0] != NV_TENSORRT_MAJOR || asked != NV_TENSORRT_VERSION) {
    abort_with("used by a plugin of another version");
  }
  if (has_fault("runtime")) {
    static_cast<ILogger *>(logger)->log(Severity::kERROR, "the driver is too old");
    return nullptr;
  }
  return static_cast<IRuntime *>(new FakeRuntime(*static_cast<ILogger *>(logger)));
}
}
