// Texts that are equal and wait at the same time: one of them is encoded, for all. The rule is that
// of engine/serve/equal_rows.py.
#ifndef BITHEADS_HOST_EQUAL_ROWS_H
#define BITHEADS_HOST_EQUAL_ROWS_H

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "call.h"
#include "fair_queue.h"

namespace bitheads {

using CallRow = Row<std::shared_ptr<Call>>;
using CallRows = std::vector<CallRow>;

// Rows that wait and those that are being encoded, by text. Not thread-safe.
//
// Each waits for its own turn: whose comes first is encoded, and all others go with it. So nobody
// waits longer for having the same text as somebody with a long queue. Who wants an embedding goes
// with nobody who wants none.
class EqualRows {
 public:
  struct Started {
    CallRows encoded;  // one of each text
    CallRows early;    // go with them though it was not their turn
  };

  bool is_running(const std::shared_ptr<Call> &call, size_t text) const;
  // A row goes with an equal one that is being encoded.
  void ride(const CallRow &row);
  // A row waits for its turn; none that is equal is being encoded.
  void wait(const CallRow &row);
  // A row waits no longer.
  void forget(const CallRow &row);
  // It is the turn of some rows that waited.
  Started start(const CallRows &taken);
  // A row is encoded, or will not be: those that went with it.
  CallRows end(const CallRow &encoded);
  void clear();

 private:
  struct TextOf {
    std::shared_ptr<Call> call;
    size_t text;
  };
  struct Hash {
    size_t operator()(const TextOf &one) const { return one.call->hashes[one.text]; }
  };
  struct Equal {
    bool operator()(const TextOf &a, const TextOf &b) const;
  };

  std::unordered_map<TextOf, std::map<Turn, CallRow>, Hash, Equal> waiting_;
  std::unordered_map<TextOf, CallRows, Hash, Equal> running_;
};

}  // namespace bitheads

#endif
