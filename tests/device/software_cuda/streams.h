// Streams, events and the work that waits in them.
#ifndef BITHEADS_TESTS_SOFTWARE_CUDA_STREAMS_H
#define BITHEADS_TESTS_SOFTWARE_CUDA_STREAMS_H

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "driver.h"

namespace soft {

struct Capture;

// One thing for the device to do. A graph runs it again and again.
struct Operation {
  std::string what;            // for reports
  std::vector<Range> touches;  // memory that it names and that must be there when it runs
  std::function<CUresult()> run;
  bool releases_lock = false;  // while it runs: it is a kernel, or calls back into Python
};

// Everything submitted to a stream up to a position.
struct Mark {
  std::shared_ptr<Stream> stream;
  uint64_t position = 0;

  bool is_done() const;
};

struct Submitted {
  Operation operation;
  std::vector<Mark> after;
  uint64_t position;
};

struct Stream {
  CUstream handle = nullptr;
  CUcontext context = nullptr;
  unsigned flags = 0;
  bool is_default = false;
  std::deque<Submitted> queue;
  uint64_t submitted = 0;
  uint64_t completed = 0;
  std::shared_ptr<Capture> capture;
  std::vector<size_t> capture_tips;  // nodes that the next one comes after

  bool is_blocking() const { return !is_default && (flags & CU_STREAM_NON_BLOCKING) == 0; }
};

// One recording of an event; recording it again makes another.
struct Recording {
  Mark mark;
  double milliseconds = 0;
};

struct Event {
  CUcontext context = nullptr;
  unsigned flags = 0;
  std::shared_ptr<Recording> recording;
  // If it was recorded in a stream that is captured.
  std::shared_ptr<Capture> capture;
  std::vector<size_t> capture_tips;
};

// The stream a handle means, or null and `status` set.
std::shared_ptr<Stream> find_stream(Call &call, CUstream handle, CUresult *status);
void make_default_streams(Context &context);

// Hands work to a stream, or to the graph that is captured from it.
CUresult submit(Call &call, const std::shared_ptr<Stream> &stream, Operation operation,
                std::vector<Mark> after = {});

// Runs what must have run before the mark is reached, nothing else.
CUresult run_to(Call &call, const Mark &mark);
CUresult run_all(Call &call);
CUresult run_default_stream(Call &call);
Mark tail(const std::shared_ptr<Stream> &stream);

// What work that has not run yet names this memory, or "".
std::string pending_use(const Range &range);

// Checks what the operation names, then runs it. The lock is held.
CUresult execute(std::unique_lock<std::mutex> &lock, Context &context, const Operation &operation);

}  // namespace soft

#endif
