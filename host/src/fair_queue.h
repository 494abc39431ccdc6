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

// Where a text is in the queue: by its tag, and by when it came.
using Turn = std::pair<int64_t, uint64_t>;

// A text that waits: the index-th of a call, its tokens, and those with padding.
template <class Owner>
struct Row {
  Owner owner;
  size_t index;
  int64_t length;
  int64_t padded;
  Turn turn = {};
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

  // Some texts of a call, by their tokens, without padding and with it; returns them as they wait.
  std::vector<Row<Owner>> put(const Owner &owner, const std::vector<size_t> &texts,
                              const std::vector<int64_t> &lengths,
                              const std::vector<int64_t> &padded) {
    std::vector<Row<Owner>> put;
    int64_t tag = taken_tokens_;
    for (size_t i = 0; i < texts.size(); ++i) {
      put.push_back({owner, texts[i], lengths[i], padded[i], {tag, count_++}});
      rows_.emplace(put.back().turn, put.back());
      tag += lengths[i];
    }
    return put;
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

  // A text that waits is not to be taken any more: it goes with another.
  void remove(const Row<Owner> &row) { rows_.erase(row.turn); }

  // Forgets a call's texts; returns them.
  std::vector<Row<Owner>> drop(const Owner &owner) {
    std::vector<Row<Owner>> dropped;
    for (auto at = rows_.begin(); at != rows_.end();) {
      const bool is_its = at->second.owner == owner;
      if (is_its) dropped.push_back(std::move(at->second));
      at = is_its ? rows_.erase(at) : std::next(at);
    }
    return dropped;
  }

 private:
  using Rows = std::map<Turn, Row<Owner>>;

  Rows rows_;
  int64_t taken_tokens_ = 0;
  uint64_t count_ = 0;  // of texts ever, so that equal tags keep their order
};

}  // namespace bitheads

#endif
