// Who runs when: calls' texts become batches within a token budget, as the encoder is free.
#ifndef BITHEADS_HOST_SCHEDULER_H
#define BITHEADS_HOST_SCHEDULER_H

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "batch_answers.h"
#include "call.h"
#include "codes_cache.h"
#include "encoder.h"
#include "equal_rows.h"
#include "fair_queue.h"
#include "heads.h"

namespace bitheads {

// Throws Error(invalid_input) for options of it that make no sense.
void check_scheduling(const Options &options);

// Runs an encoder and its heads on what many callers ask for, at most one batch per lane at a time.
//
// While one batch would hold all that waits, it gets all cores; when there is more, the encoder's
// lanes take a batch each. Nothing waits for a batch to fill up. Whatever goes wrong with a batch
// ends that batch's calls, and the lane takes the next one.
//
// Of equal texts that wait at the same time one is encoded, and none whose codes are in the cache:
// who asks for these answers them in his own thread.
class Scheduler {
 public:
  // Opens the lanes and begins its threads. What it is given has to be there until `close` has
  // returned.
  Scheduler(Encoder &encoder, HeadThreads &heads, const FeatureSpec &spec, int64_t max_queue_tokens,
            int64_t cache_bytes);
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

  Statistics statistics();

  // Ends all calls with Error(closed), and the threads. Not to be called by one of them.
  void close();

 private:
  // Texts of a call that need no encoder, and what is kept of them.
  struct Cached {
    CallRows rows;
    std::vector<std::shared_ptr<const Kept>> kept;
  };
  // What a batch gave: codes, and what of them is to be kept; or why there are none.
  struct Encoded {
    PackedFeatures features;
    std::vector<std::shared_ptr<const Kept>> kept;
    std::optional<Failure> failure;
  };

  // With the lock.
  void check_open() const;
  Cached admit(const std::shared_ptr<Call> &call);
  void check_room(int64_t tokens) const;
  void wake_threads();
  std::vector<std::shared_ptr<Call>> settle(const CallRows &rows,
                                            const std::optional<Failure> &failure);
  void drop_locked(const std::shared_ptr<Call> &call);
  bool takes_all() const;
  bool is_turn() const;

  void work();
  void take_turn(std::unique_lock<std::mutex> &hold);
  Encoded encode(const CallRows &rows, bool on_lane);
  PlacedRows end_equal(const CallRows &rows, const Encoded &encoded);
  std::optional<Failure> answer(const PlacedRows &placed, const PackedFeatures &features);
  void answer_cached(const Cached &cached);
  void end_all(const std::vector<std::shared_ptr<Call>> &ended,
               const std::optional<Failure> &failure);
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
  EqualRows equal_;
  CodesCache cache_;
  Statistics counts_;
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
