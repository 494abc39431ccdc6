// A call as the scheduler has it: its texts, what was found of them so far, and how it ended.
#ifndef BITHEADS_HOST_CALL_H
#define BITHEADS_HOST_CALL_H

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "heads.h"
#include "process.h"

namespace bitheads {

class Scheduler;

// Why a call has no answer. Not an exception: each who waits is thrown one of his own.
struct Failure {
  Status status;
  std::string message;
};

// Of the exception that is being handled.
Failure current_failure() noexcept;

// Who makes a call fills it in; from then on it is the scheduler's until it has ended, and nobody
// changes it afterwards.
class Call : public std::enable_shared_from_this<Call> {
 public:
  // Texts of which the same heads are asked, from texts[first] on. Of heads of two texts the
  // outputs are the texts' vectors.
  struct Part {
    size_t first = 0;
    Heads heads = {};
    Outputs outputs = {};
  };

  // Adds texts, which Encoder::check found sound, and what is asked of them.
  void add(std::vector<Tokens> tokens, const Heads &asked);

  // Makes room for what will be found. Of `features` all but offsets and codes is filled in before.
  void prepare();
  Part &part_of(size_t text);
  int64_t num_tokens() const { return features.offsets.back(); }
  bool wants_embeddings() const { return features.embedding_dim > 0; }

  // Ends it, with an answer or without one, and calls `done`; nothing if it has ended.
  void end(std::optional<Failure> failure = std::nullopt) noexcept;
  bool has_ended() const;
  // Returns once it has ended; throws Error for why it has no answer, or if this is another
  // process.
  void wait() const;
  // Whether it has ended; waits so long for it.
  bool wait_for(std::chrono::nanoseconds time) const;

  // The answers, once it has ended without an error.
  std::vector<Prediction> predictions() const;

  std::vector<Tokens> texts;
  std::vector<uint64_t> hashes;  // [texts]
  PackedFeatures features;       // of all texts; the codes, and embeddings, only if asked for
  bool keeps_codes = false;
  std::vector<Part> parts;
  Heads heads;                 // of all parts, in the order of the answers
  std::vector<RowPair> pairs;  // of the texts of the part whose heads are of two texts
  Outputs pair_outputs;
  size_t num_waiting = 0;  // texts of which not all is found
  std::function<void(const std::shared_ptr<Call> &)> done;
  std::weak_ptr<Scheduler> scheduler;  // that it waits at

 private:
  OwnProcess process_;
  mutable std::mutex lock_;
  mutable std::condition_variable changed_;
  bool has_ended_ = false;
  std::optional<Failure> failure_;
};

}  // namespace bitheads

#endif
