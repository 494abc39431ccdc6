#include "graphs.h"

#include <algorithm>

namespace soft {

namespace {

thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

void leave_capture(const std::shared_ptr<Capture> &capture) {
  for (const auto &stream : state().queues) {
    if (stream->capture != capture) continue;
    stream->capture = nullptr;
    stream->capture_tips.clear();
  }
  for (const auto &[handle, event] : state().events.all()) {
    if (event->capture == capture) event->capture = nullptr;
  }
}

// Whether every node comes before the end of the stream where the capture began.
bool is_joined(const Graph &graph, const std::vector<size_t> &tips) {
  std::vector<bool> reached(graph.nodes.size());
  for (size_t tip : tips) reached[tip] = true;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    if (!reached[i]) return false;  // what comes after it has a higher index
    for (size_t before : graph.nodes[i].after) reached[before] = true;
  }
  return true;
}

// An order that the graph allows, later nodes first: an edge that is missing should be missed.
std::vector<size_t> latest_first(const Graph &graph) {
  const size_t num_nodes = graph.nodes.size();
  std::vector<size_t> order;
  std::vector<bool> is_done(num_nodes);
  while (order.size() < num_nodes) {
    for (size_t i = num_nodes; i-- > 0;) {
      const auto &after = graph.nodes[i].after;
      if (is_done[i]) continue;
      if (!std::all_of(after.begin(), after.end(), [&](size_t j) { return is_done[j]; })) continue;
      is_done[i] = true;
      order.push_back(i);
      break;
    }
  }
  return order;
}

CUresult instantiate(Call &call, CUgraphExec *exec, CUgraph handle) {
  const auto graph = state().graphs.find(handle);
  if (graph == nullptr) return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets no graph");
  auto copy = std::make_shared<Graph>();
  for (size_t i : latest_first(*graph)) copy->nodes.push_back(graph->nodes[i]);
  auto made = std::make_shared<GraphExec>();
  made->graph = copy;
  *exec = state().graph_execs.add(made);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult add_node(Call &call, Stream &stream, Operation operation) {
  Capture &capture = *stream.capture;
  if (!capture.is_valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  count("captured_operations");
  (void)call;
  capture.graph->nodes.push_back({std::move(operation), stream.capture_tips});
  stream.capture_tips = {capture.graph->nodes.size() - 1};
  return CUDA_SUCCESS;
}

CUresult join_capture(Call &call, Stream &stream, const Event &event) {
  if (!event.capture->is_valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream.is_default) {
    invalidate(*event.capture);
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
                       "draws the default stream into a capture");
  }
  if (stream.capture != nullptr && stream.capture != event.capture) {
    invalidate(*stream.capture);
    invalidate(*event.capture);
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_MERGE, "would merge two captures");
  }
  stream.capture = event.capture;
  for (size_t tip : event.capture_tips) {
    auto &tips = stream.capture_tips;
    if (std::find(tips.begin(), tips.end(), tip) == tips.end()) tips.push_back(tip);
  }
  return CUDA_SUCCESS;
}

void invalidate(Capture &capture) {
  capture.is_valid = false;
}

std::shared_ptr<Capture> forbidding_capture() {
  if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return nullptr;
  for (const auto &stream : state().queues) {
    const auto &capture = stream->capture;
    if (capture == nullptr || capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const bool is_mine = capture->thread == std::this_thread::get_id();
    if (is_mine) return capture;
    if (capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
        thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL) {
      return capture;
    }
  }
  return nullptr;
}

}  // namespace soft

using namespace soft;

SOFT_EXPORT CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  SOFT_CALL(cuStreamBeginCapture, kContext);
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  if (stream->is_default) {
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "captures the default stream");
  }
  if (stream->capture != nullptr) {
    invalidate(*stream->capture);
    return call.misuse(CUDA_ERROR_ILLEGAL_STATE, "gets a stream that is being captured");
  }
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream->handle;
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
  SOFT_CALL(cuStreamEndCapture, kContext);
  CUresult status;
  *graph = nullptr;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture == nullptr) {
    return call.misuse(CUDA_ERROR_ILLEGAL_STATE, "gets a stream that is not captured");
  }
  if (capture->origin != stream->handle) {
    invalidate(*capture);
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "gets a stream that joined a capture");
  }
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
      capture->thread != std::this_thread::get_id()) {
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "ends another thread's capture");
  }
  const std::vector<size_t> tips = stream->capture_tips;
  leave_capture(capture);
  if (!capture->is_valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!is_joined(*capture->graph, tips)) {
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
                       "finds work of another stream that nothing waits for");
  }
  *graph = state().graphs.add(capture->graph);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *capturing) {
  SOFT_CALL(cuStreamIsCapturing, kContext);
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  *capturing = stream->capture == nullptr  ? CU_STREAM_CAPTURE_STATUS_NONE
               : stream->capture->is_valid ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                           : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  SOFT_CALL(cuThreadExchangeStreamCaptureMode, kInitialized);
  std::swap(*mode, thread_mode);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph,
                                                 unsigned long long) {
  SOFT_CALL(cuGraphInstantiate, kContext);
  return instantiate(call, exec, graph);
}

SOFT_EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  SOFT_CALL(cuGraphDestroy, kInitialized);
  if (state().graphs.find(graph) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets no graph");
  }
  state().graphs.remove(graph);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec) {
  SOFT_CALL(cuGraphExecDestroy, kInitialized);
  if (state().graph_execs.find(exec) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets no executable graph");
  }
  state().graph_execs.remove(exec);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode *nodes, size_t *num_nodes) {
  SOFT_CALL(cuGraphGetNodes, kInitialized);
  const auto graph = state().graphs.find(handle);
  if (graph == nullptr) return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets no graph");
  if (nodes != nullptr) {
    return call.misuse(CUDA_ERROR_NOT_SUPPORTED, "gives only the number of nodes");
  }
  *num_nodes = graph->nodes.size();
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuGraphUpload(CUgraphExec exec, CUstream) {
  SOFT_CALL(cuGraphUpload, kContext);
  if (state().graph_execs.find(exec) == nullptr) {
    return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets no executable graph");
  }
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  SOFT_CALL(cuGraphLaunch, kContext);
  CUresult status;
  const auto stream = find_stream(call, stream_handle, &status);
  if (stream == nullptr) return status;
  const auto exec = state().graph_execs.find(handle);
  if (exec == nullptr) return call.misuse(CUDA_ERROR_INVALID_VALUE, "gets no executable graph");
  if (stream->capture != nullptr) {
    return call.misuse(CUDA_ERROR_NOT_SUPPORTED, "puts a graph into a graph");
  }
  count("graph_launches");
  for (const Node &node : exec->graph->nodes) {
    SOFT_TRY(submit(call, stream, node.operation));
  }
  return CUDA_SUCCESS;
}
