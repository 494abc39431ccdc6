// A thread block on the host: one fiber per thread, and the places where threads meet.
//
// A warp collective holds its threads until all 32 of the warp wait at the same one, and only then
// are values exchanged; __syncthreads holds them until the whole block waits there. A meeting that
// some thread never reaches is reported, not guessed, and never waited for.
//
// Between meetings threads run one after another. Running them once in ascending and once in
// descending order shows a missing meeting between any two: in one of the orders the reader comes
// before the writer.
#ifndef BITHEADS_TESTS_BLOCK_H
#define BITHEADS_TESTS_BLOCK_H

#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace host_cuda {

constexpr int kLanes = 32;

// What a lane brings to a collective, replaced by what it takes away.
struct alignas(16) Slot {
  unsigned char bytes[48];
};
using Combine = void (*)(Slot (&slots)[kLanes]);

// The last lane first, the last warp first.
inline bool run_in_reverse = false;

class Block {
 public:
  using EnterThread = std::function<void(int)>;

  // Runs `body` once for each thread, after `enter(thread)` whenever the thread is resumed.
  void run(int num_threads, const EnterThread &enter, const std::function<void()> &body) {
    if (num_threads % kLanes != 0) {
      throw std::runtime_error("the block has " + std::to_string(num_threads) +
                               " threads, expected a multiple of 32");
    }
    while (static_cast<int>(threads_.size()) < num_threads) threads_.emplace_back();
    num_threads_ = num_threads;
    enter_ = &enter;
    body_ = &body;
    for (int i = 0; i < num_threads; ++i) start(threads_[static_cast<size_t>(i)]);
    for (;;) {
      for (int i = 0; i < num_threads; i += kLanes) {
        run_warp(run_in_reverse ? num_threads - kLanes - i : i);
      }
      const int num_done = count(0, num_threads, State::kDone);
      if (num_done == num_threads) return;
      if (num_done != 0) {
        throw std::runtime_error("__syncthreads: " + std::to_string(num_threads - num_done) +
                                 " of " + std::to_string(num_threads) +
                                 " threads wait there, the others have left");
      }
      set_ready(0, num_threads);
    }
  }

  // Called in a thread: waits for its warp.
  void meet_warp(Combine combine, uint32_t mask, Slot *slot) {
    Thread &thread = current();
    thread.combine = combine;
    thread.mask = mask;
    thread.slot = *slot;
    suspend(State::kAtWarp);
    *slot = thread.slot;
  }

  // Called in a thread: waits for the block.
  void meet_block() { suspend(State::kAtBlock); }

 private:
  static constexpr size_t kStackBytes = 64 * 1024;

  enum class State { kReady, kAtWarp, kAtBlock, kDone };

  struct Thread {
    State state = State::kDone;
    bool started = false;
    Combine combine = nullptr;
    uint32_t mask = 0;
    Slot slot;
    ucontext_t context;
    jmp_buf resume_here;
    void *fake_stack = nullptr;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
  };

  Thread &current() { return threads_[static_cast<size_t>(thread_)]; }

  int count(int first, int last, State state) const {
    int n = 0;
    for (int i = first; i < last; ++i) n += threads_[static_cast<size_t>(i)].state == state;
    return n;
  }

  void set_ready(int first, int last) {
    for (int i = first; i < last; ++i) threads_[static_cast<size_t>(i)].state = State::kReady;
  }

  // Until every lane has left or waits for the block.
  void run_warp(int first) {
    for (;;) {
      for (int i = 0; i < kLanes; ++i) {
        thread_ = first + (run_in_reverse ? kLanes - 1 - i : i);
        if (current().state != State::kReady) continue;
        (*enter_)(thread_);
        resume();
      }
      const int num_waiting = count(first, first + kLanes, State::kAtWarp);
      if (num_waiting == 0) return;
      exchange(first, num_waiting);
      set_ready(first, first + kLanes);
    }
  }

  // All 32 must wait at one collective: anything else is undefined on the device.
  void exchange(int first, int num_waiting) {
    Slot slots[kLanes];
    const Combine combine = threads_[static_cast<size_t>(first)].combine;
    for (int lane = 0; lane < kLanes; ++lane) {
      const Thread &thread = threads_[static_cast<size_t>(first + lane)];
      if (num_waiting != kLanes || thread.mask != 0xFFFFFFFFu || thread.combine != combine) {
        throw std::runtime_error("a warp diverged: " + std::to_string(num_waiting) +
                                 " of 32 lanes wait at a collective, expected all lanes at the "
                                 "same one with a full mask");
      }
      slots[lane] = thread.slot;
    }
    combine(slots);
    for (int lane = 0; lane < kLanes; ++lane) {
      threads_[static_cast<size_t>(first + lane)].slot = slots[lane];
    }
  }

  void start(Thread &thread) {
    thread.state = State::kReady;
    thread.started = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter_thread, 0);
  }

  static void enter_thread();

#if defined(__SANITIZE_ADDRESS__)
  // The sanitizer must know which stack it is on.
  void resume() {
    Thread &thread = current();
    void *fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, thread.stack.get(), kStackBytes);
    swapcontext(&main_, &thread.context);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
  }

  void suspend(State state) {
    Thread &thread = current();
    thread.state = state;
    __sanitizer_start_switch_fiber(state == State::kDone ? nullptr : &thread.fake_stack,
                                   main_stack_, main_stack_bytes_);
    swapcontext(&thread.context, &main_);
    __sanitizer_finish_switch_fiber(thread.fake_stack, nullptr, nullptr);
  }
#else
  // swapcontext asks the kernel for the signal mask, which is most of its time: it only enters a
  // stack, from then on threads are left and resumed by jumps.
  void resume() {
    Thread &thread = current();
    if (_setjmp(main_here_) != 0) return;
    if (thread.started) _longjmp(thread.resume_here, 1);
    thread.started = true;
    setcontext(&thread.context);
  }

  void suspend(State state) {
    Thread &thread = current();
    thread.state = state;
    if (_setjmp(thread.resume_here) == 0) _longjmp(main_here_, 1);
  }
#endif

  std::vector<Thread> threads_;
  int num_threads_ = 0;
  int thread_ = 0;
  const EnterThread *enter_ = nullptr;
  const std::function<void()> *body_ = nullptr;
  ucontext_t main_;
  jmp_buf main_here_;
  const void *main_stack_ = nullptr;
  size_t main_stack_bytes_ = 0;
};

inline Block &the_block() {
  static Block block;
  return block;
}

inline void Block::enter_thread() {
  Block &block = the_block();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.main_stack_, &block.main_stack_bytes_);
#endif
  (*block.body_)();
  block.suspend(State::kDone);
}

// A collective: every lane brings a `Payload`, `combine` changes all 32 of them in place.
template <class Payload, void (*combine)(Payload (&lanes)[kLanes])>
Payload collective(uint32_t mask, const Payload &payload) {
  static_assert(std::is_trivially_copyable_v<Payload> && sizeof(Payload) <= sizeof(Slot));
  Slot slot;
  memcpy(slot.bytes, &payload, sizeof payload);
  const Combine on_slots = [](Slot(&slots)[kLanes]) {
    Payload lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) memcpy(&lanes[i], slots[i].bytes, sizeof(Payload));
    combine(lanes);
    for (int i = 0; i < kLanes; ++i) memcpy(slots[i].bytes, &lanes[i], sizeof(Payload));
  };
  the_block().meet_warp(on_slots, mask, &slot);
  Payload result;
  memcpy(&result, slot.bytes, sizeof result);
  return result;
}

}  // namespace host_cuda

#endif
