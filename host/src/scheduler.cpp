#include "scheduler.h"

#include <algorithm>
#include <utility>

#include "error.h"

namespace bitheads {
namespace {

// Small calls that make up the bound of the queue: a call that is no larger is encoded whole before
// those that came later; engine/serve/room.py.
constexpr int64_t kPieces = 64;

constexpr const char *kClosed =
    "engine: it is being destroyed, so this call ends without an answer. Keep it until the last "
    "call has ended.";

}  // namespace

void check_scheduling(const Options &options) {
  if (options.max_queue_tokens < 1) {
    fail(Status::invalid_input, "max_queue_tokens: got ", options.max_queue_tokens,
         ", expected 1 or more.");
  }
  if (options.cache_bytes < 0) {
    fail(Status::invalid_input, "cache_bytes: got ", options.cache_bytes,
         ", expected 0 or more: 0 keeps nothing.");
  }
  if (options.cache_bytes > 0 && !options.share_batches) {
    fail(Status::invalid_input, "cache_bytes: got ", options.cache_bytes,
         " without share_batches, whose callers share what is kept. Set both, or neither.");
  }
}

Scheduler::Scheduler(Encoder &encoder, HeadThreads &heads, const FeatureSpec &spec,
                     int64_t max_queue_tokens, int64_t cache_bytes)
    : encoder_(encoder),
      heads_(heads),
      spec_(spec),
      max_queue_tokens_(max_queue_tokens),
      num_lanes_(encoder.open_lanes()),
      cache_(cache_bytes) {
  if (num_lanes_ == 1) num_lanes_ = 0;
  try {
    for (size_t i = 0; i < std::max<size_t>(1, num_lanes_); ++i) {
      threads_.emplace_back([this] { work(); });
    }
  } catch (...) {
    close();
    throw;
  }
}

Scheduler::Visit::Visit(Scheduler &scheduler) : scheduler_(scheduler) {
  const std::lock_guard<std::mutex> hold(scheduler.lock_);
  scheduler.check_open();
  ++scheduler.num_visitors_;
}

Scheduler::Visit::~Visit() {
  const std::lock_guard<std::mutex> hold(scheduler_.lock_);
  if (--scheduler_.num_visitors_ == 0) scheduler_.nobody_here_.notify_all();
}

void Scheduler::check_open() const {
  if (failure_) throw Error(failure_->status, failure_->message);
  if (is_closing_) throw Error(Status::closed, kClosed);
}

// What the cache has of a call; the rest waits, or goes with what is being encoded.
Scheduler::Cached Scheduler::admit(const std::shared_ptr<Call> &call) {
  check_open();
  const std::vector<int64_t> &offsets = call->features.offsets;
  Cached cached;
  CallRows riding;
  std::vector<size_t> waiting;
  std::vector<int64_t> lengths;
  int64_t tokens = 0;
  for (size_t i = 0; i < call->texts.size(); ++i) {
    const int64_t length = offsets[i + 1] - offsets[i];
    if (auto kept = cache_.get(call->texts[i], call->hashes[i], call->wants_embeddings())) {
      cached.rows.push_back({call, i, length, length});
      cached.kept.push_back(std::move(kept));
    } else if (equal_.is_running(call, i)) {
      riding.push_back({call, i, length, length});
    } else {
      waiting.push_back(i);
      lengths.push_back(length);
      tokens += length;
    }
  }
  if (!waiting.empty()) check_room(tokens);
  open_.insert(call);
  for (const CallRow &row : queue_.put(call, waiting, lengths, encoder_.pad_lengths(lengths))) {
    equal_.wait(row);
  }
  for (const CallRow &row : riding) equal_.ride(row);
  tokens_ += tokens;
  queued_tokens_ += tokens;
  counts_.cached_texts += cached.rows.size();
  return cached;
}

// A call waits for no more than is there, and of each call before it for as much as it has itself,
// or a small call whole; engine/serve/room.py.
void Scheduler::check_room(int64_t tokens) const {
  const int64_t piece = std::max(tokens, max_queue_tokens_ / kPieces);
  const auto calls = static_cast<int64_t>(open_.size());
  const int64_t before = calls > tokens_ / piece ? tokens_ : calls * piece;
  if (tokens_ > 0 && before + tokens > max_queue_tokens_) {
    fail(Status::queue_full, "queue: got a call of ", tokens, " tokens, and ", before,
         " are encoded before it, expected at most ", max_queue_tokens_,
         " with it. Ask again later, in calls of fewer texts, or raise max_queue_tokens.");
  }
}

// With the lock. What one batch holds needs one thread.
void Scheduler::wake_threads() {
  if (queued_tokens_ > encoder_.max_batch_tokens()) {
    changed_.notify_all();
  } else {
    changed_.notify_one();
  }
}

void Scheduler::submit(const std::shared_ptr<Call> &call) {
  if (call->texts.empty()) {
    end_whole(call);
    return;
  }
  std::unique_lock<std::mutex> hold(lock_);
  const Cached cached = admit(call);
  wake_threads();
  hold.unlock();
  answer_cached(cached);
}

// Where nothing else runs and a batch holds all that waits, the caller's thread is as good as any,
// and there already.
void Scheduler::run(const std::shared_ptr<Call> &call) {
  if (call->texts.empty()) {
    end_whole(call);
  } else {
    std::unique_lock<std::mutex> hold(lock_);
    const Cached cached = admit(call);
    if (!cached.rows.empty()) {
      hold.unlock();
      answer_cached(cached);
      hold.lock();
    }
    try {
      while (open_.count(call) > 0 && is_turn() && takes_all()) take_turn(hold);
      if (open_.count(call) > 0) wake_threads();
    } catch (...) {  // where no memory is left
      if (hold.owns_lock()) hold.unlock();
      fail_all(current_failure());
    }
  }
  call->wait();
}

void Scheduler::drop(const std::shared_ptr<Call> &call) {
  const std::lock_guard<std::mutex> hold(lock_);
  drop_locked(call);
}

void Scheduler::drop_locked(const std::shared_ptr<Call> &call) {
  if (open_.erase(call) == 0) return;
  for (const CallRow &row : queue_.drop(call)) {
    equal_.forget(row);
    tokens_ -= row.length;
    queued_tokens_ -= row.length;
  }
}

Statistics Scheduler::statistics() {
  const std::lock_guard<std::mutex> hold(lock_);
  Statistics found = counts_;
  found.cache_texts = cache_.size();
  found.cache_bytes = cache_.max_bytes() > 0 ? cache_.bytes() : 0;
  return found;
}

// Whether the next batch is to have all cores: nothing else runs, and it holds all.
bool Scheduler::takes_all() const {
  return num_lanes_ == 0 || (lanes_busy_ == 0 && queued_tokens_ <= encoder_.max_batch_tokens());
}

// Whether there is something to run and a place to run it.
bool Scheduler::is_turn() const {
  return !queue_.empty() && !is_all_busy_ && (!takes_all() || lanes_busy_ == 0);
}

// A thread's life.
void Scheduler::work() {
  try {
    std::unique_lock<std::mutex> hold(lock_);
    while (true) {
      changed_.wait(hold, [&] { return is_closing_ || is_turn(); });
      if (is_closing_) return;
      take_turn(hold);
    }
  } catch (...) {
    fail_all(current_failure());
  }
}

// With the lock, which it lets go of while it runs.
void Scheduler::take_turn(std::unique_lock<std::mutex> &hold) {
  const bool on_lane = !takes_all();
  CallRows taken = queue_.take(encoder_.max_batch_tokens(), encoder_.call_tokens());
  const EqualRows::Started started = equal_.start(taken);
  for (const CallRow &row : started.early) {
    queue_.remove(row);
    taken.push_back(row);
  }
  int64_t tokens = 0;
  for (const CallRow &row : taken) tokens += row.length;
  queued_tokens_ -= tokens;
  lanes_busy_ += on_lane ? 1 : 0;
  is_all_busy_ = !on_lane;
  hold.unlock();
  const Encoded encoded = encode(started.encoded, on_lane);
  hold.lock();
  const PlacedRows placed = end_equal(started.encoded, encoded);
  hold.unlock();
  const std::optional<Failure> failure =
      encoded.failure ? encoded.failure : answer(placed, encoded.features);
  hold.lock();
  tokens_ -= tokens;
  const std::vector<std::shared_ptr<Call>> ended = settle(placed.rows, failure);
  lanes_busy_ -= on_lane ? 1 : 0;
  is_all_busy_ = false;
  if (!queue_.empty()) changed_.notify_all();
  hold.unlock();  // what follows may call us
  end_all(ended, failure);
  hold.lock();
}

// As one batch; the texts are all different.
Scheduler::Encoded Scheduler::encode(const CallRows &rows, bool on_lane) {
  Encoded encoded;
  try {
    std::vector<const Tokens *> texts;
    bool embeddings = false;
    for (const CallRow &row : rows) {
      texts.push_back(&row.owner->texts[row.index]);
      embeddings = embeddings || row.owner->wants_embeddings();
    }
    encoded.features = encoder_.encode_together(texts, on_lane, embeddings);
    if (cache_.max_bytes() > 0) encoded.kept = keep(rows, encoded.features);
  } catch (...) {
    encoded.failure = current_failure();
  }
  return encoded;
}

// With the lock. Who asks for these texts from now on finds them in the cache, or has them encoded
// again. Returns all rows that they are of.
PlacedRows Scheduler::end_equal(const CallRows &rows, const Encoded &encoded) {
  PlacedRows placed;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!encoded.kept.empty()) {
      cache_.put(rows[i].owner->hashes[rows[i].index], encoded.kept[i]);
    }
    placed.add(rows[i], i);
    for (CallRow &row : equal_.end(rows[i])) placed.add(std::move(row), i);
  }
  counts_.encoded_texts += rows.size();
  counts_.joined_texts += placed.rows.size() - rows.size();
  return placed;
}

std::optional<Failure> Scheduler::answer(const PlacedRows &placed, const PackedFeatures &features) {
  try {
    hand_out(placed, features, heads_, spec_);
    return std::nullopt;
  } catch (...) {
    return current_failure();
  }
}

// Without the lock.
void Scheduler::answer_cached(const Cached &cached) {
  if (cached.rows.empty()) return;
  std::optional<Failure> failure;
  try {
    const bool embeddings = cached.rows.front().owner->wants_embeddings();
    PlacedRows placed;
    for (size_t i = 0; i < cached.rows.size(); ++i) placed.add(cached.rows[i], i);
    hand_out(placed, restore(cached.kept, spec_, embeddings), heads_, spec_);
  } catch (...) {
    failure = current_failure();
  }
  std::unique_lock<std::mutex> hold(lock_);
  const auto ended = settle(cached.rows, failure);
  hold.unlock();
  end_all(ended, failure);
}

// With the lock. Rows have their results, or never will: the calls that have ended with them.
std::vector<std::shared_ptr<Call>> Scheduler::settle(const CallRows &rows,
                                                     const std::optional<Failure> &failure) {
  std::vector<std::shared_ptr<Call>> ended;
  for (const CallRow &row : rows) {
    if (failure) {
      drop_locked(row.owner);
      ended.push_back(row.owner);
    } else if (--row.owner->num_waiting == 0) {
      open_.erase(row.owner);
      ended.push_back(row.owner);
    }
  }
  return ended;
}

void Scheduler::end_all(const std::vector<std::shared_ptr<Call>> &ended,
                        const std::optional<Failure> &failure) {
  for (const auto &call : ended) {
    if (failure) {
      call->end(failure);
    } else {
      end_whole(call);
    }
  }
}

// All of its texts have their results.
void Scheduler::end_whole(const std::shared_ptr<Call> &call) {
  try {
    for (const Call::Part &part : call->parts) {
      if (!part.heads.empty() && part.heads.front()->form == Form::two_texts) {
        call->pair_outputs = heads_.run_pair_blocks(part.outputs, call->pairs, part.heads);
      }
    }
    call->end();
  } catch (...) {
    call->end(current_failure());
  }
}

// Nothing is to wait for what will never come.
void Scheduler::fail_all(const Failure &failure) {
  std::set<std::shared_ptr<Call>> left;
  {
    const std::lock_guard<std::mutex> hold(lock_);
    failure_ = failure;
    is_closing_ = true;
    left.swap(open_);
    queue_.clear();
    equal_.clear();
    tokens_ = queued_tokens_ = 0;
    changed_.notify_all();
  }
  for (const auto &call : left) call->end(failure);
}

void Scheduler::close() {
  std::set<std::shared_ptr<Call>> left;
  {
    const std::lock_guard<std::mutex> hold(lock_);
    is_closing_ = true;
    left.swap(open_);
    queue_.clear();
    equal_.clear();
    queued_tokens_ = 0;
    changed_.notify_all();
  }
  for (const auto &call : left) call->end(Failure{Status::closed, kClosed});
  for (std::thread &thread : threads_) thread.join();
  std::unique_lock<std::mutex> hold(lock_);
  nobody_here_.wait(hold, [&] { return num_visitors_ == 0; });
}

}  // namespace bitheads
