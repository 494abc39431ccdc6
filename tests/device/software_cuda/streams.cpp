#include "streams.h"

#include <algorithm>
#include <chrono>

#include "graphs.h"

namespace soft {

namespace {

thread_local bool this_thread_executes = false;

// Where one piece of work is done, then the search for more ends: a poll makes that much progress.
enum class Extent { kAll, kOne };

class Executor {
 public:
  Executor(Call &call) : call_(call) {
    state().stopped_executing.wait(call.lock, [] { return !state().is_executing; });
    state().is_executing = this_thread_executes = true;
  }
  ~Executor() {
    state().is_executing = this_thread_executes = false;
    state().stopped_executing.notify_all();
  }

  // Returns whether a kOne has been used up.
  bool run_to(const Mark &mark, Extent extent) {
    Stream &stream = *mark.stream;
    while (!stream.queue.empty() && stream.queue.front().position <= mark.position) {
      const std::vector<Mark> after = stream.queue.front().after;
      for (const Mark &dependency : after) {
        if (run_to(dependency, extent)) return true;
      }
      const Submitted work = std::move(stream.queue.front());
      stream.queue.pop_front();
      const auto context = state().contexts.find(stream.context);
      if (context != nullptr && context->sticky == CUDA_SUCCESS) {
        context->sticky = execute(call_.lock, *context, work.operation);
      }
      stream.completed = work.position;
      if (extent == Extent::kOne) return true;
    }
    return false;
  }

 private:
  Call &call_;
};

CUresult run(Call &call, const std::vector<Mark> &marks, Extent extent) {
  if (this_thread_executes) {
    return call.misuse(CUDA_ERROR_NOT_PERMITTED, "waits for the device inside of its work");
  }
  {
    Executor executor(call);
    for (const Mark &mark : marks) {
      if (executor.run_to(mark, extent)) break;
    }
  }
  auto &queues = state().queues;  // a destroyed stream lives until its work is done
  queues.erase(std::remove_if(queues.begin(), queues.end(),
                              [](const std::shared_ptr<Stream> &stream) {
                                return stream->queue.empty() && !stream->is_default &&
                                       state().streams.find(stream->handle) == nullptr;
                              }),
               queues.end());
  return call.context != nullptr ? call.context->sticky : CUDA_SUCCESS;
}

// What a device might do by itself: nothing that streams and events do not allow. Never while
// another thread runs work, which may wait for a lock of the caller's, Python's for one.
void run_at_random(Call &call) {
  State &s = state();
  if (s.random == nullptr || s.is_executing) return;
  Executor executor(call);
  while ((*s.random)() % 4 != 0) {
    std::vector<std::shared_ptr<Stream>> busy;
    std::copy_if(s.queues.begin(), s.queues.end(), std::back_inserter(busy),
                 [](const auto &stream) { return !stream->queue.empty(); });
    if (busy.empty()) return;
    executor.run_to(tail(busy[(*s.random)() % busy.size()]), Extent::kOne);
  }
}

}  // namespace

bool Mark::is_done() const {
  return stream->completed >= position;
}

Mark tail(const std::shared_ptr<Stream> &stream) {
  return {stream, stream->submitted};
}

CUresult execute(std::unique_lock<std::mutex> &lock, Context &, const Operation &operation) {
  for (const Range &range : operation.touches) {
    if (state().memory.covers(range)) continue;
    report(operation.what + " uses " + state().memory.describe(range.address));
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  if (!operation.releases_lock) return operation.run();
  lock.unlock();
  const CUresult status = operation.run();
  lock.lock();
  return status;
}

std::shared_ptr<Stream> find_stream(Call &call, CUstream handle, CUresult *status) {
  *status = CUDA_SUCCESS;
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return call.context->default_stream;
  if (handle == CU_STREAM_PER_THREAD) return call.context->per_thread_stream;
  std::shared_ptr<Stream> stream = state().streams.find(handle);
  if (stream == nullptr) {
    *status =
        call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets a stream that does not exist (any more)");
  } else if (stream->context != call.context->handle) {
    *status = call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets a stream of another context");
    stream = nullptr;
  }
  return stream;
}

void make_default_streams(Context &context) {
  for (auto *stream : {&context.default_stream, &context.per_thread_stream}) {
    *stream = std::make_shared<Stream>();
    (*stream)->context = context.handle;
    state().queues.push_back(*stream);
  }
  context.default_stream->is_default = true;
  context.per_thread_stream->handle = CU_STREAM_PER_THREAD;
}

CUresult submit(Call &call, const std::shared_ptr<Stream> &stream, Operation operation,
                std::vector<Mark> after) {
  if (stream->capture != nullptr) return add_node(call, *stream, std::move(operation));
  if (stream->is_default || stream->is_blocking()) {
    // The legacy default stream waits for all blocking streams, and they for it.
    for (const auto &other : state().queues) {
      if (other == stream || other->context != stream->context) continue;
      const bool is_ordered = stream->is_default ? other->is_blocking() : other->is_default;
      if (!is_ordered) continue;
      if (stream->is_default && other->capture != nullptr) {
        invalidate(*other->capture);
        return call.misuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
                           "uses the default stream while a blocking stream is captured");
      }
      if (!tail(other).is_done()) after.push_back(tail(other));
    }
  }
  stream->queue.push_back({std::move(operation), std::move(after), ++stream->submitted});
  if (state().is_eager) return run_to(call, tail(stream));
  run_at_random(call);
  return CUDA_SUCCESS;
}

CUresult run_to(Call &call, const Mark &mark) {
  if (!this_thread_executes) run_at_random(call);
  return mark.is_done() ? call.context->sticky : run(call, {mark}, Extent::kAll);
}

CUresult run_all(Call &call) {
  std::vector<Mark> marks;
  // The newest stream first: an order between streams that nobody asked for should not appear.
  for (auto stream = state().queues.rbegin(); stream != state().queues.rend(); ++stream) {
    if (!tail(*stream).is_done()) marks.push_back(tail(*stream));
  }
  return marks.empty() ? call.context->sticky : run(call, marks, Extent::kAll);
}

CUresult run_default_stream(Call &call) {
  if (this_thread_executes) return CUDA_SUCCESS;
  return run_to(call, tail(call.context->default_stream));
}

std::string pending_use(const Range &range) {
  for (const auto &stream : state().queues) {
    for (const Submitted &work : stream->queue) {
      for (const Range &used : work.operation.touches) {
        if (used.address < range.address + range.bytes &&
            range.address < used.address + used.bytes) {
          return work.operation.what;
        }
      }
    }
  }
  return "";
}

namespace {

double now_ms() {
  using std::chrono::steady_clock;
  return std::chrono::duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// Whether it may be waited for: in a captured stream nothing runs.
CUresult refuse_captured(Call &call, const Stream &stream) {
  if (stream.capture == nullptr) return CUDA_SUCCESS;
  invalidate(*stream.capture);
  return call.misuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "waits for a stream that is captured");
}

CUresult query(Call &call, const Mark &mark) {
  if (mark.is_done()) return call.context->sticky;
  // Who polls would poll for ever if nothing ran meanwhile. Another thread's work may need a lock
  // of the caller's.
  if (state().is_executing) return CUDA_ERROR_NOT_READY;
  SOFT_TRY(run(call, {mark}, Extent::kOne));
  return CUDA_ERROR_NOT_READY;
}

CUresult create_stream(Call &call, CUstream *handle, unsigned flags) {
  if ((flags & ~static_cast<unsigned>(CU_STREAM_NON_BLOCKING)) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto stream = std::make_shared<Stream>();
  stream->context = call.context->handle;
  stream->flags = flags;
  stream->handle = *handle = state().streams.add(stream);
  state().queues.push_back(stream);
  return CUDA_SUCCESS;
}

std::shared_ptr<Event> find_event(Call &call, CUevent handle, CUresult *status) {
  std::shared_ptr<Event> event = state().events.find(handle);
  if (event == nullptr) {
    *status =
        call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets an event that does not exist (any more)");
  }
  return event;
}

CUresult enqueue_function(Call &call, CUstream handle, const char *what, std::vector<Range> touches,
                          std::function<void()> function) {
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  Operation operation;
  operation.what = what;
  operation.touches = std::move(touches);
  operation.releases_lock = true;
  operation.run = [function = std::move(function)] {
    function();
    return CUDA_SUCCESS;
  };
  return submit(call, stream, std::move(operation));
}

}  // namespace

}  // namespace soft

using namespace soft;

SOFT_EXPORT CUresult cuStreamCreate(CUstream *handle, unsigned flags) {
  SOFT_CALL(cuStreamCreate, kContext);
  return create_stream(call, handle, flags);
}

SOFT_EXPORT CUresult cuStreamCreateWithPriority(CUstream *handle, unsigned flags, int) {
  SOFT_CALL(cuStreamCreateWithPriority, kContext);
  return create_stream(call, handle, flags);
}

SOFT_EXPORT CUresult cuStreamDestroy_v2(CUstream handle) {
  SOFT_CALL(cuStreamDestroy, kContext);
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  if (stream->is_default || handle == CU_STREAM_PER_THREAD) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture != nullptr) {
    invalidate(*stream->capture);
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "destroys a stream being captured");
  }
  state().streams.remove(handle);  // its work still runs, when something waits for it
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuStreamSynchronize(CUstream handle) {
  SOFT_CALL(cuStreamSynchronize, kContext);
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  SOFT_TRY(refuse_captured(call, *stream));
  count("synchronizations");
  return run_to(call, tail(stream));
}

SOFT_EXPORT CUresult cuStreamQuery(CUstream handle) {
  SOFT_CALL(cuStreamQuery, kContext);
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  SOFT_TRY(refuse_captured(call, *stream));
  return query(call, tail(stream));
}

SOFT_EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
  SOFT_CALL(cuStreamWaitEvent, kContext);
  CUresult status;
  const auto stream = find_stream(call, handle, &status);
  if (stream == nullptr) return status;
  const auto event = find_event(call, event_handle, &status);
  if (event == nullptr) return status;
  if (event->capture != nullptr) return join_capture(call, *stream, *event);
  if (stream->capture != nullptr) {
    if (event->recording == nullptr) return CUDA_SUCCESS;
    invalidate(*stream->capture);
    return call.misuse(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                       "makes a captured stream wait for work outside of the capture");
  }
  if (event->recording == nullptr) return CUDA_SUCCESS;  // never recorded: nothing to wait for
  Operation operation{"a wait for an event", {}, [] { return CUDA_SUCCESS; }};
  return submit(call, stream, std::move(operation), {event->recording->mark});
}

SOFT_EXPORT CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *user) {
  SOFT_CALL(cuLaunchHostFunc, kContext);
  return enqueue_function(call, stream, "a host function", {}, [=] { function(user); });
}

SOFT_EXPORT CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback function, void *user,
                                         unsigned) {
  SOFT_CALL(cuStreamAddCallback, kContext);
  SOFT_TRY(call.refuse_during_capture());
  return enqueue_function(call, stream, "a stream callback", {},
                          [=] { function(stream, CUDA_SUCCESS, user); });
}

// What a test's stand-in for an encoder puts into a stream. It names the memory it uses as pairs
// (address, bytes), so that freeing that too early is noticed.
SOFT_EXPORT CUresult soft_enqueue_host_function(CUstream stream, void (*function)(void *),
                                                void *user, const uint64_t *ranges,
                                                uint64_t num_ranges) {
  SOFT_CALL(soft_enqueue_host_function, kContext);
  std::vector<Range> touches;
  for (uint64_t i = 0; i < num_ranges; ++i) touches.push_back({ranges[2 * i], ranges[2 * i + 1]});
  for (const Range &range : touches) {
    if (state().memory.covers(range)) continue;
    return call.misuse(CUDA_ERROR_INVALID_VALUE, "names " + std::to_string(range.bytes) +
                                                     " bytes at " +
                                                     state().memory.describe(range.address));
  }
  count("host_functions");
  return enqueue_function(call, stream, "an enqueued host function", std::move(touches),
                          [=] { function(user); });
}

SOFT_EXPORT CUresult cuEventCreate(CUevent *handle, unsigned flags) {
  SOFT_CALL(cuEventCreate, kContext);
  auto event = std::make_shared<Event>();
  event->context = call.context->handle;
  event->flags = flags;
  *handle = state().events.add(event);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuEventDestroy_v2(CUevent handle) {
  SOFT_CALL(cuEventDestroy, kContext);
  CUresult status;
  if (find_event(call, handle, &status) == nullptr) return status;
  state().events.remove(handle);
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuEventRecord(CUevent event_handle, CUstream stream_handle) {
  SOFT_CALL(cuEventRecord, kContext);
  CUresult status;
  const auto stream = find_stream(call, stream_handle, &status);
  if (stream == nullptr) return status;
  const auto event = find_event(call, event_handle, &status);
  if (event == nullptr) return status;
  if (event->context != stream->context) {
    return call.misuse(CUDA_ERROR_INVALID_HANDLE, "gets event and stream of different contexts");
  }
  event->capture = stream->capture;
  event->capture_tips = stream->capture_tips;
  if (stream->capture != nullptr) return CUDA_SUCCESS;
  auto recording = std::make_shared<Recording>();
  Operation operation{"the record of an event", {}, [recording] {
                        recording->milliseconds = now_ms();
                        return CUDA_SUCCESS;
                      }};
  SOFT_TRY(submit(call, stream, std::move(operation)));
  recording->mark = tail(stream);
  event->recording = recording;
  return CUDA_SUCCESS;
}

SOFT_EXPORT CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned) {
  return cuEventRecord(event, stream);
}

namespace {

CUresult refuse_captured_event(Call &call, const Event &event) {
  if (event.capture == nullptr) return CUDA_SUCCESS;
  invalidate(*event.capture);
  return call.misuse(CUDA_ERROR_CAPTURED_EVENT, "waits for an event recorded in a capture");
}

}  // namespace

SOFT_EXPORT CUresult cuEventQuery(CUevent handle) {
  SOFT_CALL(cuEventQuery, kContext);
  CUresult status;
  const auto event = find_event(call, handle, &status);
  if (event == nullptr) return status;
  SOFT_TRY(refuse_captured_event(call, *event));
  return event->recording == nullptr ? CUDA_SUCCESS : query(call, event->recording->mark);
}

SOFT_EXPORT CUresult cuEventSynchronize(CUevent handle) {
  SOFT_CALL(cuEventSynchronize, kContext);
  CUresult status;
  const auto event = find_event(call, handle, &status);
  if (event == nullptr) return status;
  SOFT_TRY(refuse_captured_event(call, *event));
  count("synchronizations");
  return event->recording == nullptr ? CUDA_SUCCESS : run_to(call, event->recording->mark);
}

SOFT_EXPORT CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent first, CUevent second) {
  SOFT_CALL(cuEventElapsedTime, kContext);
  CUresult status;
  const auto begin = find_event(call, first, &status);
  if (begin == nullptr) return status;
  const auto end = find_event(call, second, &status);
  if (end == nullptr) return status;
  for (const auto &event : {begin, end}) {
    if ((event->flags & CU_EVENT_DISABLE_TIMING) != 0 || event->recording == nullptr) {
      return call.misuse(CUDA_ERROR_INVALID_HANDLE,
                         "gets an event that was not recorded or has no timing");
    }
  }
  for (const auto &event : {begin, end}) {
    if (!event->recording->mark.is_done()) return CUDA_ERROR_NOT_READY;
  }
  *milliseconds = static_cast<float>(end->recording->milliseconds - begin->recording->milliseconds);
  return CUDA_SUCCESS;
}
