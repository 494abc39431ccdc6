// libbitheads_onnxruntime.so: its backends, and the one that needs no GPU.
#include <algorithm>
#include <atomic>
#include <list>
#include <map>
#include <mutex>
#include <utility>

#include "onnxruntime_session.h"

namespace bitheads::plugins {
namespace {

constexpr const char *kTensorRt = "onnxruntime-tensorrt";
constexpr const char *kCuda = "onnxruntime-cuda";
constexpr const char *kCpu = "onnxruntime-cpu";

// ONNX Runtime on the CPU, in each call's turn on the stream.
class CpuSession : public Session {
 public:
  using Session::Session;

  void bind(const std::uint64_t *inputs, const std::uint64_t *outputs) override {
    kept_.clear();  // they hold the addresses they were made with
    Session::bind(inputs, outputs);
  }

  void enqueue(std::int64_t rows, std::int64_t seq, bool keep) override {
    Call call = check_call(rows, seq);
    throw_failure();
    turns_.remove_if([](const Turn &turn) { return turn.is_done.load(); });
    Turn *turn = nullptr;
    if (!keep) {
      turn = &turns_.emplace_back(*this);
      turn->call = std::move(call);
    } else {
      const auto [kept, is_new] = kept_.try_emplace({rows, seq}, *this);
      turn = &kept->second;
      // Else it is the same call, which may be running.
      if (is_new) turn->call = std::move(call);
    }
    const std::int32_t error = device_.enqueue_function(device_.host, take_turn, turn);
    if (error != 0) {
      fail(BITHEADS_DEVICE_FAILED, backend_, ": the driver refused a call on the stream: error ",
           error, ".");
    }
  }

  void forget(std::int64_t rows, std::int64_t seq) override { kept_.erase({rows, seq}); }

 private:
  struct Turn {
    explicit Turn(CpuSession &session) : session(session) {}

    CpuSession &session;
    Call call{};
    std::atomic<bool> is_done{false};
  };

  static void take_turn(void *waiting) {
    auto &turn = *static_cast<Turn *>(waiting);
    turn.session.run_in_turn(turn.call);
    turn.is_done = true;
  }

  void throw_failure() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  // Runs in a thread of the driver; the next enqueue says what went wrong.
  void run_in_turn(const Call &call) noexcept {
    try {
      run(call);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      failure_ = std::current_exception();
    }
  }

  std::mutex mutex_;  // of the next
  std::exception_ptr failure_;
  std::list<Turn> turns_;
  std::map<std::pair<std::int64_t, std::int64_t>, Turn> kept_;
};

}  // namespace

const char *const backends[] = {kTensorRt, kCuda, nullptr};
const char *const software_backend = kCpu;
const char *const plan_flavour = nullptr;

std::string library_version() {
  return OnnxRuntime::open().version();
}

std::unique_ptr<bitheads_device_session> open_session(const bitheads_device_model &model,
                                                      const bitheads_device &device) {
  const std::string backend = model.backend;
  if (backend != kTensorRt && backend != kCuda && backend != kCpu) {
    fail(BITHEADS_DEVICE_FAILED, "backend: got ", backend, ", expected ", kTensorRt, ", ", kCuda,
         " or ", kCpu, ".");
  }
  const OnnxRuntime &library = OnnxRuntime::open();
  if (backend == kCpu) return std::make_unique<CpuSession>(library, nullptr, model, device);
  const char *provider = backend == kCuda ? kCudaProvider : kTensorRtProvider;
  const std::vector<std::string> providers = library.providers();
  if (std::find(providers.begin(), providers.end(), provider) == providers.end()) {
    fail(BITHEADS_DEVICE_FAILED, "backend ", backend, " needs ONNX Runtime's ", provider, ", got ",
         join(providers), ". Name the libonnxruntime.so of a build for GPUs in ", kLibraryVariable,
         ".");
  }
  return std::make_unique<Session>(library, provider, model, device);
}

}  // namespace bitheads::plugins
