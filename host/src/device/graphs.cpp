#include "device/graphs.h"

namespace bitheads {
namespace {

constexpr int kRelaxed = 2;  // CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate meanwhile

}  // namespace

Graph::Graph(const Device &device, CudaHandle stream, const std::function<void()> &record)
    : device_(device) {
  const Driver &driver = device.driver();
  CudaHandle recorded = nullptr;
  device.check(driver.begin_capture(stream, kRelaxed));
  try {
    record();
  } catch (...) {
    driver.end_capture(stream, &recorded);
    if (recorded != nullptr) driver.destroy_graph(recorded);
    throw;
  }
  device.check(driver.end_capture(stream, &recorded));
  CudaHandle executable = nullptr;
  const CudaStatus status = driver.instantiate_graph(&executable, recorded, 0);
  driver.destroy_graph(recorded);
  device.check(status);
  executable_ = {device, executable, driver.destroy_graph_exec};
}

void Graph::launch(CudaHandle stream) const {
  device_.check(device_.driver().launch_graph(executable_.get(), stream));
}

}  // namespace bitheads
