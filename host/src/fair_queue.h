// Texts that wait for the encoder, in an order in which no call starves another. The rule is that
// of engine/serve/fair_queue.py, for one client.
#ifndef BITHEADS_HOST_FAIR_QUEUE_H
#define BITHEADS_HOST_FAIR_QUEUE_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "batching.h"

namespace bitheads {

// Budgets' worth of tokens among which texts of like length are looked for.
constexpr int64_t kLookAhead = 16;

// A text that waits: the index-th of a call, its tokens, and those with padding.
template <class Owner>
struct Row {
  Owner owner;
  size_t index;
  int64_t length;
  int64_t padded;
};

// First come, first served, with long calls spread out. Not thread-safe.
//
// Each text has a tag: the tokens that had been taken when its call came, plus the tokens of the
// call before it. The least tag is next. So a call of one text waits for what was there when it
// came, but of a call with 1,000 texts only for as much as was due by then; and the long one is
// never passed for good: what comes later has a later tag.
template <class Owner>
class FairQueue {
 public:
  bool empty() const { return rows_.empty(); }
  void clear() { rows_.clear(); }

  // All texts of a call, by their tokens, without padding and with it.
  void put(const Owner &owner, const std::vector<int64_t> &lengths,
           const std::vector<int64_t> &padded) {
    int64_t tag = taken_tokens_;
    for (size_t i = 0; i < lengths.size(); ++i) {
      rows_.emplace(std::pair(tag, count_++), Row<Owner>{owner, i, lengths[i], padded[i]});
      tag += lengths[i];
    }
  }

  // The next batch: the text whose turn it is, and those that go with it at least cost. At least
  // one text; the queue must not be empty.
  std::vector<Row<Owner>> take(int64_t max_batch_tokens, int64_t call_tokens) {
    std::vector<typename Rows::iterator> found;
    std::vector<int64_t> lengths;
    int64_t tokens = kLookAhead * max_batch_tokens;
    for (auto at = rows_.begin(); at != rows_.end() && tokens > 0; ++at) {
      found.push_back(at);
      lengths.push_back(at->second.padded);
      tokens -= at->second.length;
    }
    std::vector<Row<Owner>> taken;
    for (const size_t i :
         choose_batch(lengths, found.size() == rows_.size(), max_batch_tokens, call_tokens)) {
      taken_tokens_ += found[i]->second.length;
      taken.push_back(std::move(found[i]->second));
      rows_.erase(found[i]);
    }
    return taken;
  }

  // Forgets a call's texts; returns their tokens.
  int64_t drop(const Owner &owner) {
    int64_t tokens = 0;
    for (auto at = rows_.begin(); at != rows_.end();) {
      const bool is_its = at->second.owner == owner;
      tokens += is_its ? at->second.length : 0;
      at = is_its ? rows_.erase(at) : std::next(at);
    }
    return tokens;
  }

 private:
  using Rows = std::map<std::pair<int64_t, uint64_t>, Row<Owner>>;  // by tag, and by when it came

  Rows rows_;
  int64_t taken_tokens_ = 0;
  uint64_t count_ = 0;  // of texts ever, so that equal tags keep their order
};

}  // namespace bitheads

#endif
