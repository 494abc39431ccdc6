// A warp on the host: 32 fibers that take turns, and the collectives at which they meet.
#ifndef BITHEADS_TESTS_WARP_H
#define BITHEADS_TESTS_WARP_H

#include <stdint.h>
#include <ucontext.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace host_cuda {

constexpr int kLanes = 32;

class Warp {
 public:
  using EnterLane = std::function<void(int)>;

  Warp() : stacks_(static_cast<size_t>(kLanes) * kStackBytes) {}

  // Runs `body` once for each lane, after `enter_lane(lane)` whenever the lane is resumed.
  void run(const EnterLane &enter_lane, const std::function<void()> &body) {
    body_ = &body;
    for (int lane = 0; lane < kLanes; ++lane) start(lane);
    for (;;) {
      int num_waiting = 0;
      for (lane_ = 0; lane_ < kLanes; ++lane_) {
        if (lanes_[lane_].done) continue;
        enter_lane(lane_);
        resume();
        if (!lanes_[lane_].done) ++num_waiting;
      }
      if (num_waiting == 0) return;
      meet(num_waiting);
    }
  }

  // Called in a lane: waits for the others, then gives all 32 values.
  const uint32_t *exchange(const char *what, uint32_t mask, uint32_t value) {
    Lane &lane = lanes_[lane_];
    lane.waits_at = what;
    lane.mask = mask;
    lane.value = value;
    suspend(false);
    return exchanged_;
  }

  int lane() const { return lane_; }

 private:
  static constexpr size_t kStackBytes = 64 * 1024;

  struct Lane {
    ucontext_t context;
    bool done = true;
    const char *waits_at = nullptr;
    uint32_t mask = 0;
    uint32_t value = 0;
    void *fake_stack = nullptr;
  };

  // All 32 must wait at one collective: anything else is undefined on the device.
  void meet(int num_waiting) {
    const Lane &first = lanes_[0];
    for (int lane = 0; lane < kLanes; ++lane) {
      const Lane &other = lanes_[lane];
      if (num_waiting != kLanes || other.mask != 0xFFFFFFFFu || other.waits_at != first.waits_at) {
        throw std::runtime_error("a warp diverged: " + std::to_string(num_waiting) +
                                 " of 32 lanes wait at a collective, expected all lanes at the "
                                 "same one with a full mask");
      }
      exchanged_[lane] = other.value;
    }
  }

  void start(int index) {
    Lane &lane = lanes_[index];
    lane.done = false;
    getcontext(&lane.context);
    lane.context.uc_stack.ss_sp = stack(index);
    lane.context.uc_stack.ss_size = kStackBytes;
    lane.context.uc_link = nullptr;
    makecontext(&lane.context, enter, 0);
  }

  static void enter();

  char *stack(int index) { return stacks_.data() + static_cast<size_t>(index) * kStackBytes; }

  // The sanitizer must know which stack it is on.
  void resume() {
    Lane &lane = lanes_[lane_];
#if defined(__SANITIZE_ADDRESS__)
    void *fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, stack(lane_), kStackBytes);
    swapcontext(&main_, &lane.context);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    swapcontext(&main_, &lane.context);
#endif
  }

  void suspend(bool done) {
    Lane &lane = lanes_[lane_];
    lane.done = done;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(done ? nullptr : &lane.fake_stack, main_stack_,
                                   main_stack_bytes_);
    swapcontext(&lane.context, &main_);
    __sanitizer_finish_switch_fiber(lane.fake_stack, nullptr, nullptr);
#else
    swapcontext(&lane.context, &main_);
#endif
  }

  std::vector<char> stacks_;
  ucontext_t main_;
  Lane lanes_[kLanes];
  uint32_t exchanged_[kLanes] = {};
  int lane_ = 0;
  const std::function<void()> *body_ = nullptr;
  const void *main_stack_ = nullptr;
  size_t main_stack_bytes_ = 0;
};

inline Warp &the_warp() {
  static Warp warp;
  return warp;
}

inline void Warp::enter() {
  Warp &warp = the_warp();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &warp.main_stack_, &warp.main_stack_bytes_);
#endif
  (*warp.body_)();
  warp.suspend(true);
}

inline void run_warp(const Warp::EnterLane &enter_lane, const std::function<void()> &body) {
  the_warp().run(enter_lane, body);
}

inline const uint32_t *exchange(const char *what, uint32_t mask, uint32_t value) {
  return the_warp().exchange(what, mask, value);
}

inline int current_lane() {
  return the_warp().lane();
}

}  // namespace host_cuda

#endif
