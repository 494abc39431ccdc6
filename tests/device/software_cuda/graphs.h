// Graphs: the work of captured streams, with what each piece comes after.
#ifndef BITHEADS_TESTS_SOFTWARE_CUDA_GRAPHS_H
#define BITHEADS_TESTS_SOFTWARE_CUDA_GRAPHS_H

#include <cuda.h>

#include <memory>
#include <thread>
#include <vector>

#include "driver.h"
#include "streams.h"

namespace soft {

struct Node {
  Operation operation;
  std::vector<size_t> after;  // indices of earlier nodes
};

struct Graph {
  std::vector<Node> nodes;
};

struct GraphExec {
  std::shared_ptr<const Graph> graph;
};

struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  CUstream origin = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  bool is_valid = true;
};

CUresult add_node(Call &call, Stream &stream, Operation operation);
CUresult join_capture(Call &call, Stream &stream, const Event &event);
void invalidate(Capture &capture);
// The capture that forbids unsafe calls of this thread, or null.
std::shared_ptr<Capture> forbidding_capture();

}  // namespace soft

#endif
