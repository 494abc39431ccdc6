// CUDA graphs: work recorded once and launched again with one call.
#ifndef BITHEADS_HOST_DEVICE_GRAPHS_H
#define BITHEADS_HOST_DEVICE_GRAPHS_H

#include <functional>

#include "device/memory.h"

namespace bitheads {

// What `record` enqueued on `stream`, to be launched any number of times; the addresses it works
// on are those of the recording. Its last launch must be over when it goes.
class Graph {
 public:
  // Throws Error(backend) if the driver cannot record it; whatever `record` throws is thrown after
  // the recording is over.
  Graph(const Device &device, CudaHandle stream, const std::function<void()> &record);

  void launch(CudaHandle stream) const;

 private:
  const Device &device_;
  DeviceOwned<CudaHandle> executable_;
};

}  // namespace bitheads

#endif
