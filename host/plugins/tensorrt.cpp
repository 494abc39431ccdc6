// libbitheads_tensorrt.so and libbitheads_tensorrt_rtx.so: the encoder as a plan.
#include "tensorrt_session.h"

namespace bitheads::plugins {

// As the backends of Python: both run under one name, whichever the plan is for.
const char *const backends[] = {"tensorrt", nullptr};
const char *const software_backend = nullptr;
const char *const plan_flavour = BITHEADS_PLAN_FLAVOUR;

std::string library_version() {
  return TensorRt::open().version();
}

std::unique_ptr<bitheads_device_session> open_session(const bitheads_device_model &model,
                                                      const bitheads_device &device) {
  const std::string backend = model.backend;
  if (backend != backends[0]) {
    fail(BITHEADS_DEVICE_FAILED, "backend: got ", backend, ", expected ", backends[0], ".");
  }
  if (model.plan == nullptr || model.num_profiles == 0) {
    fail(BITHEADS_DEVICE_FAILED, "backend ", backend, " needs a plan, and the bundle ", model.graph,
         " has none for ", plan_flavour, ". Type: bitheads plan --bundle BUNDLE");
  }
  return std::make_unique<Session>(TensorRt::open(), model, device);
}

}  // namespace bitheads::plugins
