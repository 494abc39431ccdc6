// Large calls in chunks: while the encoder has one, the next is tokenized by another thread.
#ifndef BITHEADS_HOST_CHUNKS_H
#define BITHEADS_HOST_CHUNKS_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <vector>

#include "bitheads/bitheads.hpp"

namespace bitheads {

using Chunk = std::vector<size_t>;  // indices of its texts

Chunk every_text(size_t count);

// The texts of each chunk of a call, which are UTF-8: engine/text_chunks.py has the same rule. One
// chunk, in the order of the call, if there is nothing to be gained.
std::vector<Chunk> cut_chunks(const std::vector<Text> &texts, int64_t max_batch_tokens);

// The results of work for each of so many chunks, in order, one chunk ahead of who asks for them.
// At its end, no thread of it is left.
template <class Result>
class Ahead {
 public:
  Ahead(size_t count, std::function<Result(size_t)> work) : count_(count), work_(std::move(work)) {}

  bool is_at_end() const { return taken_ == count_; }
  // Throws what the work threw; then there is nothing more to come.
  Result next() {
    if (begun_ == taken_) begin();
    Result found = next_.get();
    ++taken_;
    if (begun_ < count_) begin();
    return found;
  }

 private:
  // Where no thread can be had, the work is done when its result is asked for.
  void begin() {
    next_ = std::async(std::launch::async | std::launch::deferred, work_, begun_);
    ++begun_;
  }

  size_t count_;
  std::function<Result(size_t)> work_;
  size_t begun_ = 0;
  size_t taken_ = 0;
  std::future<Result> next_;  // last: it waits for the work, which uses the others
};

// The features of a call, of those of its chunks, whose codes are let go of one by one.
// `places`: which of the texts of the chunks each text of the call is; empty if they are the same.
PackedFeatures in_order(std::vector<PackedFeatures> parts, const std::vector<Chunk> &chunks,
                        const std::vector<size_t> &places);

}  // namespace bitheads

#endif
