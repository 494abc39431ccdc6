#include "scheduler.h"

#include <algorithm>
#include <map>

#include "error.h"

namespace bitheads {
namespace {

// Small calls that make up the bound of the queue: a call that is no larger is encoded whole before
// those that came later; engine/serve/room.py.
constexpr int64_t kPieces = 64;

using CallRow = Row<std::shared_ptr<Call>>;

// What is asked of one head in a batch: rows, and where its outputs for each go.
struct Asked {
  std::vector<size_t> rows;
  std::vector<float *> to;
};

// Words of a call's text; how many, and the first of them.
std::pair<const Word *, size_t> words_of(const CallRow &row) {
  const Words &words = *row.owner->features.words;
  const int64_t *at = words.offsets.data() + (row.index - row.owner->part_of(row.index).first);
  return {words.table.data() + at[0], static_cast<size_t>(at[1] - at[0])};
}

// Numbers that a head puts out for a text.
size_t num_outputs(const LaidOutHead &head, const CallRow &row) {
  return head.block_outputs() * (head.kind->is_of_words() ? words_of(row).second : 1);
}

// Where a head's outputs for a text are among those of the call.
float *place_of(const CallRow &row, Call::Part &part, size_t head) {
  const LaidOutHead &asked = *part.heads[head];
  size_t before = row.index - part.first;
  if (asked.kind->is_of_words()) {
    before = static_cast<size_t>(row.owner->features.words->offsets[before]);
  }
  return part.outputs[head].data() + before * asked.block_outputs();
}

// Some rows of a batch, with the words of the texts if there are heads that read them.
PackedFeatures choose_rows(const PackedFeatures &batch, const std::vector<CallRow> &rows,
                           const std::vector<size_t> &chosen, bool with_words) {
  PackedFeatures found;
  found.code_bytes = batch.code_bytes;
  found.spec_id = batch.spec_id;
  auto words = std::make_shared<Words>();
  for (const size_t row : chosen) {
    const int64_t *tokens = batch.offsets.data() + row;
    const auto codes = batch.codes.begin();
    found.codes.insert(found.codes.end(), codes + tokens[0] * batch.code_bytes,
                       codes + tokens[1] * batch.code_bytes);
    found.offsets.push_back(found.offsets.back() + tokens[1] - tokens[0]);
    if (!with_words) continue;
    const auto [first, count] = words_of(rows[row]);
    words->table.insert(words->table.end(), first, first + count);
    words->offsets.push_back(static_cast<int64_t>(words->table.size()));
  }
  if (with_words) found.words = std::move(words);
  return found;
}

constexpr const char *kClosed =
    "engine: it is being destroyed, so this call ends without an answer. Keep it until the last "
    "call has ended.";

}  // namespace

Scheduler::Scheduler(Encoder &encoder, HeadThreads &heads, const FeatureSpec &spec,
                     int64_t max_queue_tokens)
    : encoder_(encoder),
      heads_(heads),
      spec_(spec),
      max_queue_tokens_(max_queue_tokens),
      num_lanes_(encoder.open_lanes()) {
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

// A call waits for no more than is there, and of each call before it for as much as it has itself,
// or a small call whole; engine/serve/room.py.
void Scheduler::admit(const std::shared_ptr<Call> &call) {
  check_open();
  const int64_t tokens = call->num_tokens();
  const int64_t piece = std::max(tokens, max_queue_tokens_ / kPieces);
  const auto calls = static_cast<int64_t>(open_.size());
  const int64_t before = calls > tokens_ / piece ? tokens_ : calls * piece;
  if (tokens_ > 0 && before + tokens > max_queue_tokens_) {
    fail(Status::queue_full, "queue: got a call of ", tokens, " tokens, and ", before,
         " are encoded before it, expected at most ", max_queue_tokens_,
         " with it. Ask again later, in calls of fewer texts, or raise max_queue_tokens.");
  }
  const std::vector<int64_t> &offsets = call->features.offsets;
  std::vector<int64_t> lengths;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) lengths.push_back(offsets[i + 1] - offsets[i]);
  open_.insert(call);
  queue_.put(call, lengths, encoder_.pad_lengths(lengths));
  tokens_ += tokens;
  queued_tokens_ += tokens;
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
  const std::lock_guard<std::mutex> hold(lock_);
  admit(call);
  wake_threads();
}

// Where nothing else runs and a batch holds all that waits, the caller's thread is as good as any,
// and there already.
void Scheduler::run(const std::shared_ptr<Call> &call) {
  if (call->texts.empty()) {
    end_whole(call);
  } else {
    std::unique_lock<std::mutex> hold(lock_);
    admit(call);
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
  const int64_t tokens = queue_.drop(call);
  tokens_ -= tokens;
  queued_tokens_ -= tokens;
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
  const Rows rows = queue_.take(encoder_.max_batch_tokens(), encoder_.call_tokens());
  int64_t tokens = 0;
  for (const CallRow &row : rows) tokens += row.length;
  queued_tokens_ -= tokens;
  lanes_busy_ += on_lane ? 1 : 0;
  is_all_busy_ = !on_lane;
  hold.unlock();
  const std::optional<Failure> failure = try_compute(rows, on_lane);
  std::vector<std::shared_ptr<Call>> ended;
  hold.lock();
  tokens_ -= tokens;
  for (const CallRow &row : rows) {
    if (failure) {
      drop_locked(row.owner);
      ended.push_back(row.owner);
    } else if (--row.owner->num_waiting == 0) {
      open_.erase(row.owner);
      ended.push_back(row.owner);
    }
  }
  lanes_busy_ -= on_lane ? 1 : 0;
  is_all_busy_ = false;
  if (!queue_.empty()) changed_.notify_all();
  hold.unlock();  // what follows may call us
  for (const auto &call : ended) {
    if (failure) {
      call->end(failure);
    } else {
      end_whole(call);
    }
  }
  hold.lock();
}

std::optional<Failure> Scheduler::try_compute(const Rows &rows, bool on_lane) {
  try {
    compute(rows, on_lane);
    return std::nullopt;
  } catch (...) {
    return current_failure();
  }
}

// Every head reads the texts of all who ask it together, and no others.
void Scheduler::compute(const Rows &rows, bool on_lane) {
  std::vector<const Tokens *> texts;
  bool embeddings = false;
  for (const CallRow &row : rows) {
    texts.push_back(&row.owner->texts[row.index]);
    embeddings = embeddings || row.owner->features.embedding_dim > 0;
  }
  const PackedFeatures batch = encoder_.encode_together(texts, on_lane, embeddings);
  const auto dim = static_cast<size_t>(batch.embedding_dim);
  std::map<std::shared_ptr<const LaidOutHead>, Asked> asked;
  for (size_t i = 0; i < rows.size(); ++i) {
    Call &call = *rows[i].owner;
    if (call.keeps_codes) {
      const auto begin = batch.codes.begin();
      std::copy(
          begin + batch.offsets[i] * batch.code_bytes,
          begin + batch.offsets[i + 1] * batch.code_bytes,
          call.features.codes.begin() + call.features.offsets[rows[i].index] * batch.code_bytes);
    }
    if (call.features.embedding_dim > 0) {
      std::copy_n(batch.embeddings.data() + i * dim, dim,
                  call.features.embeddings.data() + rows[i].index * dim);
    }
    Call::Part &part = call.part_of(rows[i].index);
    for (size_t head = 0; head < part.heads.size(); ++head) {
      Asked &of_head = asked[part.heads[head]];
      of_head.rows.push_back(i);
      of_head.to.push_back(place_of(rows[i], part, head));
    }
  }
  std::map<std::vector<size_t>, Heads> groups;  // heads that are asked of the same rows
  for (const auto &[head, of_head] : asked) groups[of_head.rows].push_back(head);
  for (const auto &[chosen, heads] : groups) {
    const bool with_words = read_words(heads);
    const Outputs outputs =
        heads_.outputs_of(choose_rows(batch, rows, chosen, with_words), spec_, heads);
    for (size_t i = 0; i < heads.size(); ++i) {
      const Asked &of_head = asked[heads[i]];
      const float *from = outputs[i].data();
      for (size_t j = 0; j < chosen.size(); ++j) {
        const size_t count = num_outputs(*heads[i], rows[chosen[j]]);
        std::copy(from, from + count, of_head.to[j]);
        from += count;
      }
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
    queued_tokens_ = 0;
    changed_.notify_all();
  }
  for (const auto &call : left) call->end(Failure{Status::closed, kClosed});
  for (std::thread &thread : threads_) thread.join();
  std::unique_lock<std::mutex> hold(lock_);
  nobody_here_.wait(hold, [&] { return num_visitors_ == 0; });
}

}  // namespace bitheads
