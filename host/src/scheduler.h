// Who runs when: calls' texts become batches within a token budget, as the encoder is free.
#ifndef BITHEADS_HOST_SCHEDULER_H
#define BITHEADS_HOST_SCHEDULER_H

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "call.h"
#include "encoder.h"
#include "fair_queue.h"
#include "heads.h"

namespace bitheads {

// Runs an encoder and its heads on what many callers ask for, at most one batch per lane at a time.
//
// While one batch would hold all that waits, it gets all cores; when there is more, the encoder's
// lanes take a batch each. Nothing waits for a batch to fill up. Whatever goes wrong with a batch
// ends that batch's calls, and the lane takes the next one.
class Scheduler {
 public:
  // Opens the lanes and begins its threads. What it is given has to be there until `close` has
  // returned.
  Scheduler(Encoder &encoder, HeadThreads &heads, const FeatureSpec &spec,
            int64_t max_queue_tokens);
  // After `close` only.
  ~Scheduler() = default;

  // Somebody who makes a call: `close` waits until he has left. Throws Error(closed).
  class Visit {
   public:
    explicit Visit(Scheduler &scheduler);
    ~Visit();
    Visit(const Visit &) = delete;
    Visit &operator=(const Visit &) = delete;

   private:
    Scheduler &scheduler_;
  };

  // Queues a call, which was prepared; on its end it says so itself. Throws Error(queue_full) or
  // Error(closed): then nothing happens to it.
  void submit(const std::shared_ptr<Call> &call);
  // The same, and waits for its end. Throws what it ended with, too.
  void run(const std::shared_ptr<Call> &call);
  // Takes a call's texts out of the queue; nothing if it waits no longer.
  void drop(const std::shared_ptr<Call> &call);

  // Ends all calls with Error(closed), and the threads. Not to be called by one of them.
  void close();

 private:
  using Rows = std::vector<Row<std::shared_ptr<Call>>>;

  // With the lock.
  void check_open() const;
  void admit(const std::shared_ptr<Call> &call);
  void wake_threads();
  void drop_locked(const std::shared_ptr<Call> &call);
  bool takes_all() const;
  bool is_turn() const;

  void work();
  void take_turn(std::unique_lock<std::mutex> &hold);
  std::optional<Failure> try_compute(const Rows &rows, bool on_lane);
  void compute(const Rows &rows, bool on_lane);
  void end_whole(const std::shared_ptr<Call> &call);
  void fail_all(const Failure &failure);

  Encoder &encoder_;
  HeadThreads &heads_;
  const FeatureSpec &spec_;
  int64_t max_queue_tokens_;
  size_t num_lanes_;  // 0: there are none

  std::mutex lock_;
  std::condition_variable changed_;
  FairQueue<std::shared_ptr<Call>> queue_;
  std::set<std::shared_ptr<Call>> open_;
  int64_t queued_tokens_ = 0;
  int64_t tokens_ = 0;  // that wait or are being encoded
  size_t lanes_busy_ = 0;
  bool is_all_busy_ = false;
  bool is_closing_ = false;
  std::optional<Failure> failure_;  // what ended a thread, and with it all work
  size_t num_visitors_ = 0;
  std::condition_variable nobody_here_;
  std::vector<std::thread> threads_;
};

}  // namespace bitheads

#endif
